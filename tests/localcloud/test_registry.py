"""The registry as a program of a cloud, and what it tells the Event Grid relay."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from localcloud import registry as registries
from localcloud.config import Cloud
from localcloud.eventgrid.client import RelayClient
from localcloud.registry import Registry, TokenAuth
from tests.localcloud.eventgrid_parts import Webhook, relay_in, running, webhook
from tests.localcloud.functions_host_process import PATIENTLY, free_port, until

pytestmark = pytest.mark.registry

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def push_blob(client: httpx.Client, repository: str, content: bytes) -> None:
    where = client.post(f"/v2/{repository}/blobs/uploads/").raise_for_status().headers["Location"]
    digest = {"digest": digest_of(content)}
    client.put(httpx.URL(where).copy_merge_params(digest), content=content).raise_for_status()


def push_manifest(client: httpx.Client, repository: str, reference: str | None, document: dict[str, Any]) -> str:
    content = json.dumps(document).encode()
    digest = digest_of(content)
    headers = {"Content-Type": document["mediaType"]}
    client.put(f"/v2/{repository}/manifests/{reference or digest}", content=content, headers=headers).raise_for_status()
    return digest


def image(config: bytes) -> dict[str, Any]:
    descriptor = {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)}
    return {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor, "layers": []}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, RelayClient, Webhook]]:
    """A registry, the relay it tells, and a webhook that gets all of its events."""
    relay = relay_in(tmp_path_factory.mktemp("relay"))
    registry = Registry(tmp_path_factory.mktemp("registry"), free_port(), f"{relay.url}/sources/registry")
    with running(relay) as client, webhook() as hook:
        registry.start()
        try:
            client.subscribe("images", topic="registry", endpoint=hook.url)
            yield registry, client, hook
        finally:
            registry.program().stop()


def subjects(hook: Webhook, repository: str) -> list[tuple[str, str]]:
    events = [each.event for each in hook.notifications]
    return [(e["eventType"].rpartition(".")[2], e["subject"]) for e in events if e["subject"].startswith(repository)]


def test_a_pushed_image_is_told(told: tuple[Registry, RelayClient, Webhook]) -> None:
    registry, _, hook = told
    with httpx.Client(base_url=registry.url, headers={"User-Agent": "pusher/1"}, **PATIENTLY) as client:
        push_blob(client, "team/app", b"{}")
        digest = push_manifest(client, "team/app", "main", image(b"{}"))
    (got,) = hook.wait_for(1)
    event = got.event
    assert (event["eventType"], event["subject"]) == ("Microsoft.ContainerRegistry.ImagePushed", "team/app:main")
    assert event["topic"].endswith("/Microsoft.ContainerRegistry/registries/local")
    data = event["data"]
    assert data.keys() == {"id", "timestamp", "action", "target", "request"}
    assert data["action"] == "push"
    assert len(data["timestamp"].rpartition(".")[2]) == len("123456789Z")
    size = data["target"].pop("size")
    assert data["target"].pop("length") == size
    assert data["target"] == {"mediaType": MANIFEST, "digest": digest, "repository": "team/app", "tag": "main"}
    assert data["request"].pop("id")
    assert data["request"] == {"host": f"127.0.0.1:{registry.port}", "method": "PUT", "useragent": "pusher/1"}


def test_an_index_its_parts_and_a_deletion(told: tuple[Registry, RelayClient, Webhook]) -> None:
    registry, _, hook = told
    already = len(hook.notifications)
    with httpx.Client(base_url=registry.url, **PATIENTLY) as client:
        push_blob(client, "multi", b"{}")
        digest = push_manifest(client, "multi", None, image(b"{}"))
        parts = [{"mediaType": MANIFEST, "digest": digest, "size": len(json.dumps(image(b"{}")))}]
        push_manifest(client, "multi", "main", {"schemaVersion": 2, "mediaType": INDEX, "manifests": parts})
        hook.wait_for(already + 2)
        client.delete(f"/v2/multi/manifests/{digest}").raise_for_status()
        hook.wait_for(already + 3)
    assert sorted(subjects(hook, "multi")) == [
        ("ImageDeleted", "multi"),
        ("ImagePushed", "multi"),
        ("ImagePushed", "multi:main"),
    ]


def test_a_mounted_blob_is_not_told(told: tuple[Registry, RelayClient, Webhook]) -> None:
    registry, relay, hook = told
    with httpx.Client(base_url=registry.url, **PATIENTLY) as client:
        push_blob(client, "source", b"layer")
        mount = {"mount": digest_of(b"layer"), "from": "source"}
        assert client.post("/v2/mounted/blobs/uploads/", params=mount).status_code == 201
        client.get(f"/v2/mounted/blobs/{digest_of(b'layer')}").raise_for_status()
        push_blob(client, "mounted", b"{}")
        push_manifest(client, "mounted", "v1", image(b"{}"))
    until(lambda: subjects(hook, "mounted"))
    relay.wait_until_idle()
    assert subjects(hook, "source") == []
    assert subjects(hook, "mounted") == [("ImagePushed", "mounted:v1")]


def test_pushes_wait_for_a_relay_that_is_down(tmp_path: Path) -> None:
    relay = relay_in(tmp_path / "relay")
    registry = Registry(tmp_path / "registry", free_port(), f"{relay.url}/sources/registry")
    with webhook() as hook:
        registry.start()
        try:
            with running(relay) as client:
                client.subscribe("images", topic="registry", endpoint=hook.url)
            with httpx.Client(base_url=registry.url, **PATIENTLY) as client_of_registry:
                push_blob(client_of_registry, "app", b"{}")
                push_manifest(client_of_registry, "app", "main", image(b"{}"))
            with running(relay):
                assert hook.wait_for(1)[0].event["subject"] == "app:main"
        finally:
            registry.program().stop()


def test_what_is_stored_outlives_a_restart(tmp_path: Path) -> None:
    registry = Registry(tmp_path, free_port())
    program = registry.start()
    try:
        with httpx.Client(base_url=registry.url, **PATIENTLY) as client:
            push_blob(client, "app", b"{}")
            session = client.post("/v2/app/blobs/uploads/").headers["Location"]
            session = client.patch(session, content=b"half").headers["Location"]
        pid = program.pid()
        assert registry.start().pid() == pid
        program.stop()
        registry.start()
        assert program.pid() not in (None, pid)
        with httpx.Client(base_url=registry.url, **PATIENTLY) as client:
            assert client.head(f"/v2/app/blobs/{digest_of(b'{}')}").status_code == 200
            url = httpx.URL(session).copy_merge_params({"digest": digest_of(b"half done")})
            assert client.put(url, content=b" done").status_code == 201  # an upload goes on where it stopped
    finally:
        program.stop()


def test_a_registry_that_asks_for_tokens(tmp_path: Path) -> None:
    certificate, key = tmp_path / "issuer.pem", tmp_path / "issuer.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=issuer", "-days", "1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    auth = TokenAuth("http://127.0.0.1:9/oauth2/token", "local", "issuer", certificate)
    registry = replace(Registry(tmp_path, free_port()), token_auth=auth)
    program = registry.start()
    try:
        reply = httpx.get(f"{registry.url}/v2/", **PATIENTLY)
        assert reply.status_code == 401
        challenge = reply.headers["WWW-Authenticate"]
        assert challenge == 'Bearer realm="http://127.0.0.1:9/oauth2/token",service="local"'
    finally:
        program.stop()


def test_a_cloud_has_one(registry: Cloud) -> None:
    assert registries.program(registry).pid() is not None
    assert httpx.get(f"http://{registry.registry}/v2/", **PATIENTLY).json() == {}
