"""Locks on images: Azure's client, and a stand-in for its registry's own API with TLS and the token exchange."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import jwt
import pytest
from azure.core.credentials import AccessToken

from shipmate.core.refs import Digest
from shipmate.edge.registry_locks import AzureImageLocks
from shipmate.errors import NotAllowed, Retryable
from tests.fakes.certificates import shown
from tests.fakes.http_servers import Answer, Seen, answering

LIVE, BEFORE, OLD, OTHER, GONE = (Digest(f"sha256:{letter * 64}") for letter in "abcde")
FREE, LOCKED = {"deleteEnabled": True, "writeEnabled": True}, {"deleteEnabled": False, "writeEnabled": True}
LOCKED_WHOLE = {"deleteEnabled": False, "writeEnabled": False}
"""What earlier versions left behind."""


class Me:
    """Who asks, with a token of Entra ID."""

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        assert scopes == ("https://containerregistry.azure.net/.default",)
        return AccessToken("entra", 2**31)


@dataclass
class Azure:
    """The registry's own API: `manifests` are the locks of each image of the repository `vision`."""

    manifests: dict[str, dict[str, bool]]
    url: str = ""
    changed: list[tuple[str, dict[str, bool]]] = field(default_factory=list)
    refuses: int | None = None
    vanishing: frozenset[str] = frozenset()

    def answer(self, seen: Seen) -> Answer:
        path, _, query = seen.path.partition("?")
        if path in ("/oauth2/exchange", "/oauth2/token"):
            form = {key: value[0] for key, value in parse_qs(seen.body.decode()).items()}
            key = "refresh_token" if path.endswith("exchange") else "access_token"
            assert form[{"refresh_token": "access_token", "access_token": "refresh_token"}[key]]
            return _json({key: jwt.encode({"exp": 2**31}, "k" * 32)})
        if "Authorization" not in seen.headers:
            told = f'Bearer realm="{self.url}/oauth2/token",service="here",scope="repository:vision:metadata_read"'
            return Answer(401, headers={"WWW-Authenticate": told})
        if self.refuses is not None:
            return _json({"errors": [{"code": "DENIED", "message": "no"}]}, self.refuses)
        repository, _, digest = path.removeprefix("/acr/v1/").partition("/_manifests")
        if repository != "vision":
            return _json({"errors": [{"code": "NAME_UNKNOWN", "message": "no such repository"}]}, 404)
        if seen.method == "GET":
            return self._page(parse_qs(query))
        assert seen.method == "PATCH"
        digest = unquote(digest.removeprefix("/"))
        if digest in self.vanishing:
            return _json({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "gone"}]}, 404)
        self.manifests[digest] |= json.loads(seen.body)
        self.changed.append((digest, dict(self.manifests[digest])))
        return _json({"registry": "here", "imageName": repository, "manifest": _described(digest, FREE)})

    def _page(self, query: dict[str, list[str]]) -> Answer:
        """Two images a page, as many as fit no page of the real one."""
        after = query.get("last", [""])[0]
        left = sorted(digest for digest in self.manifests if digest > after)
        found = [_described(digest, self.manifests[digest]) for digest in left[:2]]
        link = f'</acr/v1/vision/_manifests?last={left[1]}&n=2>; rel="next"' if len(left) > 2 else ""
        body = {"registry": "here", "imageName": "vision", "manifests": found}
        return _json(body, headers={"Link": link} if link else {})


def _described(digest: str, locks: dict[str, bool]) -> dict[str, Any]:
    time = "2026-11-23T04:00:00.0000000Z"
    attributes = {**locks, "readEnabled": True, "listEnabled": True}
    return {
        "digest": digest,
        "imageSize": 1,
        "createdTime": time,
        "lastUpdateTime": time,
        "changeableAttributes": attributes,
    }


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(document).encode(), {"Content-Type": "application/json", **(headers or {})})


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "both.pem"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    registry = Azure({LIVE: dict(FREE), BEFORE: dict(LOCKED), OLD: dict(LOCKED), OTHER: dict(LOCKED)})
    with answering(registry.answer, tls=shown(tmp_path / "both.pem")) as (url, _):
        registry.url = url
        yield registry


def test_the_live_image_is_locked_an_old_one_is_let_go_and_others_are_left_alone(azure: Azure) -> None:
    locks = AzureImageLocks(azure.url, Me())
    locks.lock("vision", {LIVE, BEFORE, GONE}, {OLD})
    assert azure.changed == [(LIVE, LOCKED), (OLD, FREE)]
    locks.lock("vision", {LIVE, BEFORE, GONE}, {OLD})
    assert len(azure.changed) == 2, "a repeat finds it done"


@pytest.mark.parametrize("was", [LOCKED_WHOLE, {"deleteEnabled": True, "writeEnabled": False}])
def test_an_image_to_keep_that_cannot_be_written_can_be_again(azure: Azure, was: dict[str, bool]) -> None:
    azure.manifests = {LIVE: dict(was)}
    locks = AzureImageLocks(azure.url, Me())
    for _ in range(2):
        locks.lock("vision", {LIVE}, ())
        assert azure.changed == [(LIVE, LOCKED)]


def test_an_image_that_was_locked_whole_is_let_go_whole(azure: Azure) -> None:
    azure.manifests = {OLD: dict(LOCKED_WHOLE)}
    AzureImageLocks(azure.url, Me()).lock("vision", (), {OLD})
    assert azure.changed == [(OLD, FREE)]


def test_an_old_image_that_somebody_locked_against_writing_alone_is_left_alone(azure: Azure) -> None:
    azure.manifests = {OLD: {"deleteEnabled": True, "writeEnabled": False}}
    AzureImageLocks(azure.url, Me()).lock("vision", (), {OLD})
    assert azure.changed == []


def test_an_image_that_was_deleted_meanwhile_keeps_no_other_from_its_lock(azure: Azure) -> None:
    azure.manifests, azure.vanishing = {LIVE: dict(FREE), BEFORE: dict(FREE)}, frozenset({LIVE})
    AzureImageLocks(azure.url, Me()).lock("vision", {LIVE, BEFORE}, ())
    assert azure.manifests[BEFORE] == LOCKED


def test_a_repository_that_is_not_there_has_nothing_to_lock(azure: Azure) -> None:
    AzureImageLocks(azure.url, Me()).lock("nothing", {LIVE}, ())
    assert azure.changed == []


@pytest.mark.parametrize("status", [401, 403])
def test_without_the_right_to_it_the_role_is_named(azure: Azure, status: int) -> None:
    azure.refuses = status
    with pytest.raises(
        NotAllowed, match=r"the locks on images of vision in .*needs the right to read and write metadata"
    ):
        AzureImageLocks(azure.url, Me()).lock("vision", {LIVE}, ())


def test_a_registry_in_trouble_is_asked_again_later(azure: Azure) -> None:
    azure.refuses = 409
    with pytest.raises(Retryable, match="the locks on images of vision in"):
        AzureImageLocks(azure.url, Me()).lock("vision", {LIVE}, ())


def test_a_registry_that_is_away_is_asked_again_later() -> None:
    with pytest.raises(Retryable, match="the locks on images of vision in https://127"):
        AzureImageLocks("https://127.0.0.1:9", Me()).lock("vision", {LIVE}, ())
