"""A real registry that lets nobody in without a token, and the server that hands tokens out."""

import base64
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives import serialization

from localcloud import registry as registries
from shipmate.edge.registry_auth import Password
from tests.fakes.certificates import self_signed
from tests.fakes.http_servers import Answer, Seen, answering
from tests.localcloud.functions_host_process import free_port


class TokenServer:
    """Hands out tokens as the token specification says, signed with a key of its own."""

    service, issuer = "test-registry", "test-issuer"

    def __init__(self, folder: Path) -> None:
        self.key, certificate = self_signed()
        self.certificates = folder / "tokens.pem"
        self.certificates.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.chain = [base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()]
        self.realm = ""
        self.life = 300
        self.may: Callable[[str], bool] = lambda _scope: True
        self.password: str | None = None

    @property
    def challenge(self) -> str:
        """The header WWW-Authenticate that sends here."""
        return f'Bearer realm="{self.realm}",service="{self.service}",error="invalid_token"'

    def answer(self, seen: Seen) -> Answer:
        if self.password is not None and seen.headers.get("Authorization") != Password("ann", self.password).header:
            return Answer(401, b"who are you")
        query = parse_qs(urlsplit(seen.path).query)
        scopes = [scope for scope in query.get("scope", []) if self.may(scope)]
        access = [
            {"type": kind, "name": name, "actions": actions.split(",")}
            for kind, name, actions in (scope.split(":") for scope in scopes)
        ]
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": "shipmate",
            "aud": query["service"][0],
            "iat": now,
            "nbf": now - 5,
            "exp": now + self.life,
            "jti": uuid.uuid4().hex,
            "access": access,
        }
        token = jwt.encode(claims, self.key, algorithm="ES256", headers={"x5c": self.chain})
        return Answer(200, b'{"token": "%s"}' % token.encode())


class Guarded:
    """A registry that lets nobody in without a token."""

    def __init__(self, url: str, tokens: TokenServer, asked: list[Seen]) -> None:
        self.url = url
        self.tokens = tokens
        self.asked = asked

    @property
    def host(self) -> str:
        """The registry as image references spell it."""
        return urlsplit(self.url).netloc

    def scopes(self) -> list[list[str]]:
        return [parse_qs(urlsplit(seen.path).query).get("scope", []) for seen in self.asked]


@contextmanager
def guarded_registry(folder: Path) -> Iterator[Guarded]:
    """Serve a registry that keeps what it has in a folder."""
    tokens = TokenServer(folder)
    with answering(tokens.answer) as (address, asked):
        tokens.realm = f"{address}/token"
        auth = registries.TokenAuth(tokens.realm, tokens.service, tokens.issuer, tokens.certificates)
        server = registries.Registry(folder, free_port(), token_auth=auth, name="guarded")
        program = server.start()
        try:
            yield Guarded(server.url, tokens, asked)
        finally:
            program.stop()
