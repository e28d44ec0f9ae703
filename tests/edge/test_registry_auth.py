"""How the client proves who it is: to a real registry that wants signed tokens, and to stand-ins for Azure's."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from azure.identity import DefaultAzureCredential
from hypothesis import given
from hypothesis import strategies as st

from shipmate.core.image import OCI_MANIFEST, Descriptor
from shipmate.core.refs import digest_of
from shipmate.edge import registry_http
from shipmate.edge.registry import Registry
from shipmate.edge.registry_auth import AZURE_ROLES, Anonymous, Challenge, Password, parse_challenges
from shipmate.errors import NotAllowed, Retryable
from shipmate.ports import Copied
from shipmate.stages.graft import InMemory
from tests.fakes.app_images import AppImage
from tests.fakes.guarded_registry import Guarded, guarded_registry
from tests.fakes.http_servers import Answer, Seen, answering
from tests.localcloud.functions_host_process import free_port

# -- challenges


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        pytest.param(
            'Bearer realm="https://name.azurecr.io/oauth2/token",service="name.azurecr.io",scope="repository:a:pull,push"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://name.azurecr.io/oauth2/token",
                        "service": "name.azurecr.io",
                        "scope": "repository:a:pull,push",
                    },
                )
            ],
            id="Azure",
        ),
        pytest.param(
            r'Basic realm="a \"b\", c" , BEARER Realm = https, error="x"',
            [Challenge("basic", {"realm": 'a "b", c'}), Challenge("bearer", {"realm": "https", "error": "x"})],
            id="several, quoted, spaces",
        ),
        pytest.param("Negotiate", [Challenge("negotiate", {})], id="no parameters"),
        pytest.param("Negotiate abc==", [Challenge("negotiate", {})], id="token68"),
        pytest.param("", [], id="none"),
        pytest.param('="', [], id="nonsense"),
    ],
)
def test_challenges_are_read(header: str, challenges: list[Challenge]) -> None:
    assert list(parse_challenges(header)) == challenges


@given(st.text(max_size=80))
def test_any_header_is_read(header: str) -> None:
    for challenge in parse_challenges(header):
        assert challenge.scheme == challenge.scheme.lower()


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Password("ann", "secret"))


# -- a real registry with a real token server


@pytest.fixture(scope="module")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded_registry(tmp_path_factory.mktemp("guarded")) as server:
        yield server


@pytest.fixture
def guarded(guarded_server: Guarded) -> Guarded:
    guarded_server.asked.clear()
    tokens = guarded_server.tokens
    tokens.life, tokens.may, tokens.password = 300, lambda _scope: True, None
    return guarded_server


@pytest.mark.registry
def test_tokens_are_fetched_once_a_scope_and_kept(guarded: Guarded) -> None:
    app = AppImage()
    with closing(Registry(guarded.url)) as client:
        app.push(client, "tokens/app", "main")
        assert client.resolve("tokens/app", "main").digest == app.digest
        client.get_manifest("tokens/app", "main")
    assert guarded.scopes() == [["repository:tokens/app:pull,push"], ["repository:tokens/app:pull"]]


@pytest.mark.registry
def test_a_mount_has_one_token_for_both_repositories(guarded: Guarded) -> None:
    data = b"a layer"
    blob = Descriptor("", digest_of(data), len(data))
    with closing(Registry(guarded.url)) as client:
        client.upload("tokens/one", InMemory(data))
        assert client.copy_blobs("tokens/two", [blob], source="tokens/one") == Copied(mounted=len(data))
    assert ["repository:tokens/one:pull", "repository:tokens/two:pull,push"] in guarded.scopes()


@pytest.mark.registry
def test_without_the_right_to_read_the_source_nothing_is_mounted(guarded: Guarded) -> None:
    data = b"a secret layer"
    with closing(Registry(guarded.url)) as client:
        client.upload("tokens/secret", InMemory(data))
    guarded.tokens.may = lambda scope: "secret" not in scope
    with (
        closing(Registry(guarded.url)) as client,
        pytest.raises(
            NotAllowed, match=r"does not accept Shipmate's credentials for POST /v2/tokens/three/blobs/uploads/"
        ),
    ):
        client.copy_blobs("tokens/three", [Descriptor("", digest_of(data), len(data))], source="tokens/secret")


@pytest.mark.registry
def test_a_token_is_renewed_before_it_ends(guarded: Guarded) -> None:
    guarded.tokens.life = 6
    with closing(Registry(guarded.url)) as client:
        client.upload("tokens/short", InMemory(b"x"))
        time.sleep(4.6)  # three quarters of its life are over
        client.upload("tokens/short", InMemory(b"y"))
    assert len(guarded.asked) == 2


@pytest.mark.registry
def test_a_token_that_does_not_suffice_is_told(guarded: Guarded) -> None:
    guarded.tokens.may = lambda _scope: False
    with closing(Registry(guarded.url)) as client, pytest.raises(NotAllowed, match=r"does not accept Shipmate's"):
        client.resolve("tokens/app", "main")


@pytest.mark.registry
def test_a_password_goes_to_the_token_server(guarded: Guarded) -> None:
    guarded.tokens.password = "right"
    with closing(Registry(guarded.url, Password("ann", "right"))) as client:
        client.upload("tokens/password", InMemory(b"x"))
    with (
        closing(Registry(guarded.url, Password("ann", "wrong"))) as client,
        pytest.raises(NotAllowed, match=r"hands out no token to Shipmate's identity: 401 who are you"),
    ):
        client.upload("tokens/password", InMemory(b"x"))


@pytest.mark.registry
def test_a_cancelled_upload_is_gone_with_tokens_too(guarded: Guarded) -> None:
    class Bad(InMemory):
        def open_at(self, offset: int) -> Iterator[bytes]:
            raise NotAllowed("the model may not be read")

    with closing(Registry(guarded.url)) as client, pytest.raises(NotAllowed, match=r"the model may not be read"):
        client.upload("tokens/cancelled", Bad(b"x"))
    assert ["repository:tokens/cancelled:delete", "repository:tokens/cancelled:pull,push"] in guarded.scopes()


# -- Azure Container Registry's way, and others


class EntraCredential:
    """Azure's identity, as azure-identity would give it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[str] = []

    def get_token(self, *scopes: str, **_options: Any) -> AccessToken:
        if self.error is not None:
            raise self.error
        self.asked += scopes
        return AccessToken("entra", int(time.time()) + 3600)


class AzureRegistry:
    """What Azure Container Registry's documentation says about its tokens, in front of one manifest."""

    def __init__(self, **changes: Answer) -> None:
        self.changes = changes
        self.url = ""
        self.forms: list[Mapping[str, str]] = []
        self.tokens = 0
        self.refresh = "refresh"  # the one refresh token that is taken

    def answer(self, seen: Seen) -> Answer:
        path = seen.path.partition("?")[0]
        if path.rpartition("/")[2] in self.changes:
            return self.changes[path.rpartition("/")[2]]
        if path.startswith("/oauth2/"):
            form = {key: value[0] for key, value in parse_qs(seen.body.decode()).items()}
            self.forms.append({"path": path, **form})
            if path == "/oauth2/exchange":
                return Answer(200, json.dumps({"refresh_token": self.refresh}).encode())
            if form["refresh_token"] != self.refresh:
                return Answer(401, b"revoked")
            self.tokens += 1
            return Answer(200, b'{"access_token": "access%d", "expires_in": 240}' % self.tokens)
        if seen.headers.get("Authorization") != f"Bearer access{self.tokens}" or not self.tokens:
            challenge = f'Bearer realm="{self.url}/oauth2/token",service="name.azurecr.io",scope="repository:a:pull"'
            return Answer(401, b"{}", {"WWW-Authenticate": challenge})
        headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": digest_of(b"{}"), "Content-Length": "2"}
        return Answer(200, b"{}", headers)


@pytest.fixture
def azure() -> Iterator[AzureRegistry]:
    server = AzureRegistry()
    with answering(server.answer) as (server.url, _):
        yield server


def test_an_entra_token_is_exchanged(azure: AzureRegistry) -> None:
    credential = EntraCredential()
    with closing(Registry(azure.url, credential)) as client:
        client.get_manifest("a", "main")
        client.get_manifest("a", "main")
        client.get_manifest("b", "main")
    assert credential.asked == ["https://containerregistry.azure.net/.default"]
    exchange = {"grant_type": "access_token", "service": "name.azurecr.io", "access_token": "entra"}
    token = {"grant_type": "refresh_token", "service": "name.azurecr.io", "refresh_token": "refresh"}
    assert azure.forms[:2] == [
        {"path": "/oauth2/exchange", **exchange},
        {"path": "/oauth2/token", **token, "scope": "repository:a:pull"},
    ]
    assert {form["path"] for form in azure.forms[2:]} == {"/oauth2/token"}


def test_several_scopes_go_into_one_token(azure: AzureRegistry) -> None:
    with closing(Registry(azure.url, EntraCredential())) as client:
        client.get_manifest("a", "main")
        client._http._authorizer.header(frozenset({"repository:b:pull,push", "repository:a:pull"}))
    assert azure.forms[-1]["scope"] == "repository:a:pull repository:b:pull,push"


def test_a_scope_is_asked_for_once_however_the_registry_orders_its_actions() -> None:
    asked: list[str] = []

    def answer(seen: Seen) -> Answer:
        if seen.path.startswith("/token"):
            asked.extend(parse_qs(urlsplit(seen.path).query)["scope"])
            return Answer(200, b'{"token": "x.y.z"}')
        if seen.headers.get("Authorization") != "Bearer x.y.z":
            realm = f"http://{seen.headers['Host']}/token"
            challenge = f'Bearer realm="{realm}",service="s",scope="repository:a:push,pull"'
            return Answer(401, headers={"WWW-Authenticate": challenge})
        return Answer(201, headers={"Docker-Content-Digest": digest_of(b"{}")})

    with answering(answer) as (url, _), closing(Registry(url)) as client:
        client.put_manifest("a", "main", b"{}", OCI_MANIFEST)
    assert asked == ["repository:a:pull,push"]


def test_a_refresh_token_that_was_revoked_is_replaced(azure: AzureRegistry) -> None:
    with closing(Registry(azure.url, EntraCredential())) as client:
        client.get_manifest("a", "main")
        azure.refresh = "another"
        azure.tokens += 1
        client.get_manifest("a", "main")
    assert [form["path"] for form in azure.forms] == [
        f"/oauth2/{what}" for what in ("exchange", "token", "token", "exchange", "token")
    ]


@pytest.mark.parametrize("new_token", [True, False], ids=["with a new token", "with the same token"])
def test_a_missing_role_that_azure_calls_missing_credentials_is_told(azure: AzureRegistry, new_token: bool) -> None:
    def answer(seen: Seen) -> Answer:
        if seen.path.startswith("/oauth2/"):
            if not new_token:
                azure.tokens = 0
            return azure.answer(seen)
        challenge = f'Bearer realm="{azure.url}/oauth2/token",service="name.azurecr.io",scope="repository:a:pull"'
        return Answer(401, b"unauthorized: authentication required", {"WWW-Authenticate": challenge})

    with answering(answer) as (url, _), closing(Registry(url, EntraCredential())) as client:
        azure.url = url
        for _ in range(2):  # the second request begins with the token of the first
            with pytest.raises(
                NotAllowed, match=r"401 unauthorized: authentication required; in Azure, Shipmate's"
            ) as e:
                client.get_manifest("a", "main")
    assert str(e.value).endswith(f"; {AZURE_ROLES}")
    assert ("refused the credentials" in str(e.value)) is not new_token


def test_a_refresh_token_that_never_serves_is_not_kept(azure: AzureRegistry) -> None:
    azure.changes = {"token": Answer(401, b"not you")}
    credential = EntraCredential()
    with closing(Registry(azure.url, credential)) as client:
        for attempts in (1, 2):
            with pytest.raises(NotAllowed, match="hands out no token to Shipmate's identity: 401 not you"):
                client.get_manifest("a", "main")
            assert len(credential.asked) == attempts


def test_a_token_that_is_long_in_coming_holds_up_no_other(azure: AzureRegistry) -> None:
    asked, go_on, answered = threading.Event(), threading.Event(), threading.Event()

    def slowly(seen: Seen) -> Answer:
        if b"slow" in seen.body:
            asked.set()
            go_on.wait(30)
            answered.set()
        return azure.answer(seen)

    with answering(slowly) as (url, _), closing(Registry(url, EntraCredential())) as client:
        azure.url = url
        client.get_manifest("a", "main")
        authorizer = client._http._authorizer
        waits = threading.Thread(target=authorizer.header, args=[frozenset({"repository:slow:pull"})])
        waits.start()
        assert asked.wait(10)
        assert authorizer.header(frozenset({"repository:a:pull"})) == "Bearer access1"
        assert not answered.is_set()
        go_on.set()
        waits.join()


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://name.azurecr.io", DefaultAzureCredential),
        ("https://name.azurecr.cn", DefaultAzureCredential),
        ("name.azurecr.us", DefaultAzureCredential),
        ("https://azurecr.io.example.org", Anonymous),
        ("https://registry.example.org", Anonymous),
    ],
)
def test_azures_registries_get_azures_identity(url: str, kind: type) -> None:
    with closing(Registry(url)) as client:
        assert isinstance(client._http._authorizer._credentials, kind)


def test_a_token_that_was_revoked_is_replaced(azure: AzureRegistry) -> None:
    with closing(Registry(azure.url, EntraCredential())) as client:
        client.get_manifest("a", "main")
        azure.tokens += 1  # the registry takes no older one
        client.get_manifest("a", "main")


@pytest.mark.parametrize(
    ("changes", "credential", "error", "words"),
    [
        pytest.param(
            {"exchange": Answer(401, b"unknown tenant")},
            EntraCredential(),
            NotAllowed,
            re.escape(f"hands out no token to Shipmate's identity: 401 unknown tenant; {AZURE_ROLES}"),
            id="the registry does not know the identity",
        ),
        pytest.param(
            {"token": Answer(429, b"slow", {"Retry-After": "3"})},
            EntraCredential(),
            Retryable,
            "429 slow",
            id="too many",
        ),
        pytest.param({"token": Answer(500, b"oops")}, EntraCredential(), Retryable, "500 oops", id="in trouble"),
        pytest.param(
            {"token": Answer(200, b"<html>")}, EntraCredential(), Retryable, "else than a token", id="no JSON"
        ),
        pytest.param({"token": Answer(200, b"{}")}, EntraCredential(), Retryable, "else than a token", id="no token"),
        pytest.param(
            {},
            EntraCredential(ClientAuthenticationError("no managed identity")),
            NotAllowed,
            "Azure gives Shipmate no token for the registry: no managed identity",
            id="no identity",
        ),
        pytest.param(
            {},
            EntraCredential(ServiceRequestError("no route")),
            Retryable,
            "Azure gave no token for the registry: no route",
            id="Entra is away",
        ),
    ],
)
def test_no_token_is_an_error_with_the_next_move(
    azure: AzureRegistry,
    changes: dict[str, Answer],
    credential: EntraCredential,
    error: type[Exception],
    words: str,
) -> None:
    azure.changes = changes
    with closing(Registry(azure.url, credential)) as client, pytest.raises(error, match=words):
        client.get_manifest("a", "main")


def test_a_token_server_that_is_gone_is_retryable() -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="http://127.0.0.1:{free_port()}/token",service="s"'}
    with (
        answering(lambda _: Answer(401, headers=challenge)) as (url, _),
        closing(Registry(url)) as client,
        pytest.raises(Retryable, match=r"did not hand out a token: ConnectError"),
    ):
        client.get_manifest("a", "main")


def test_a_token_server_that_says_nothing_is_left_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_http, "QUICK_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        challenge = f'Bearer realm="http://127.0.0.1:{silent.getsockname()[1]}/token",service="s"'
        with (
            answering(lambda _: Answer(401, headers={"WWW-Authenticate": challenge})) as (url, _),
            closing(Registry(url)) as client,
            pytest.raises(Retryable, match=r"did not hand out a token: ReadTimeout"),
        ):
            client.upload("a", InMemory(b"x"))


@pytest.mark.parametrize(
    ("challenge", "credentials", "words"),
    [
        pytest.param("Negotiate", Anonymous(), "asks for no known proof: 'Negotiate'", id="unknown scheme"),
        pytest.param("", Anonymous(), "asks for no known proof: ''", id="no challenge"),
        pytest.param(
            'Basic realm="x"', Anonymous(), "wants a user name and a password, and none are", id="no password"
        ),
        pytest.param(
            'Basic realm="x"', Password("ann", "wrong"), "does not accept Shipmate's credentials", id="wrong password"
        ),
        pytest.param(
            'Bearer realm="http://tokens.example/",service="s"',
            Password("ann", "right"),
            "sends for tokens to 'http://tokens.example/', which is not https",
            id="tokens in the open",
        ),
        pytest.param('Bearer realm="http://a:b/"', Anonymous(), "sends for tokens to '', which", id="no address"),
        pytest.param(
            'Bearer realm="https://tokens.example/",service="s"',
            EntraCredential(),
            "sends for tokens to tokens.example: an Entra token is not sent there",
            id="tokens elsewhere",
        ),
    ],
)
def test_credentials_are_not_given_to_anybody(challenge: str, credentials: Any, words: str) -> None:
    with (
        answering(lambda _: Answer(401, headers={"WWW-Authenticate": challenge})) as (url, _),
        closing(Registry(url, credentials)) as client,
        pytest.raises(NotAllowed, match=words),
    ):
        client.get_manifest("a", "main")


def test_a_password_goes_to_the_registry() -> None:
    password = Password("ann", "right")
    revoked = False

    def answer(seen: Seen) -> Answer:
        if revoked or seen.headers.get("Authorization") != password.header:
            return Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return Answer(200, b"{}", {"Content-Type": OCI_MANIFEST})

    with answering(answer) as (url, requests), closing(Registry(url, password)) as client:
        client.get_manifest("a", "main")
        client.get_manifest("a", "main")
        assert len(requests) == 3  # challenged once
        revoked = True
        with pytest.raises(NotAllowed, match=r"refused the credentials: 401"):
            client.get_manifest("a", "main")


def test_a_realm_keeps_its_own_query() -> None:
    def answer(seen: Seen) -> Answer:
        if seen.path.startswith("/token"):
            return Answer(200, b'{"token": "x.y.z"}')
        if seen.headers.get("Authorization") != "Bearer x.y.z":
            realm = f"http://{seen.headers['Host']}/token?account=1"
            return Answer(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'})
        return Answer(200, b"{}", {"Content-Type": OCI_MANIFEST})

    with answering(answer) as (url, requests), closing(Registry(url)) as client:
        client.get_manifest("a", "main")
    assert requests[1].path == "/token?account=1&service=s&scope=repository%3Aa%3Apull"
