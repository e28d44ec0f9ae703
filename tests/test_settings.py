"""Settings: each mistake names the key and what it should be."""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from localcloud.config import Cloud
from shipmate.core.targets import Target
from shipmate.errors import Misconfigured
from shipmate.settings import parse_targets, read_settings, read_targets
from tools.targets_schema import SCHEMA, targets_schema

ROOT = Path(__file__).parents[1]
CLOUD = Cloud("test")
LOCAL = {
    "SHIPMATE_STORAGE": CLOUD.connection_string,
    "SHIPMATE_REGISTRY": f"http://{CLOUD.registry}",
    "SHIPMATE_CLUSTER": "kubeconfig:/etc/kubeconfig#local",
    "SHIPMATE_TARGETS": "targets.yaml",
}
AZURE = {
    "SHIPMATE_STORAGE": "https://modelstore.blob.core.windows.net",
    "SHIPMATE_REGISTRY": "teamreg-a1b2c3.azurecr.io",
    "SHIPMATE_CLUSTER": "aks:/subscriptions/0/resourceGroups/g/providers/x/managedClusters/c",
    "SHIPMATE_TARGETS": "targets.yaml",
    "AzureWebJobsStorage__accountName": "funcstore",
}


def test_a_local_cloud() -> None:
    settings = read_settings(LOCAL)
    assert settings.storage == settings.queue_storage == CLOUD.connection_string
    assert settings.account == "devstoreaccount1"
    assert settings.registry == "http://127.0.0.1:17110"
    assert settings.registry_name == "local"
    assert (settings.queue, settings.ledger_container) == ("shipmate-advance", "shipmate-ledger")
    assert settings.stalled_seconds == 60
    assert settings.targets == ROOT / "targets.yaml"
    assert not settings.sign_in


def test_azure_with_a_managed_identity() -> None:
    settings = read_settings(AZURE)
    assert settings.account == "modelstore"
    assert settings.queue_storage == "https://funcstore.queue.core.windows.net"
    assert settings.registry == "https://teamreg-a1b2c3.azurecr.io"
    assert settings.registry_name == "teamreg"


def test_what_may_be_set_is_taken() -> None:
    chosen = {
        "AzureWebJobsStorage": "UseDevelopmentStorage=true",
        "SHIPMATE_REGISTRY_NAME": "mirror",
        "SHIPMATE_QUEUE": "q",
        "SHIPMATE_LEDGER_CONTAINER": "ledger",
        "SHIPMATE_STALLED_SECONDS": "2.5",
        "SHIPMATE_REGISTRY": "https://registry.test/",
    }
    settings = read_settings({**LOCAL, **chosen})
    assert settings.queue_storage == "UseDevelopmentStorage=true"
    assert (settings.registry, settings.registry_name) == ("https://registry.test", "mirror")
    assert (settings.queue, settings.ledger_container, settings.stalled_seconds) == ("q", "ledger", 2.5)


@pytest.mark.parametrize(
    ("said", "path"),
    [
        pytest.param("targets.yaml", ROOT / "targets.yaml", id="beside host.json"),
        pytest.param("conf/t.yaml", ROOT / "conf" / "t.yaml", id="below it"),
        pytest.param("/etc/targets.yaml", Path("/etc/targets.yaml"), id="absolute"),
        pytest.param("~/targets.yaml", Path.home() / "targets.yaml", id="at home"),
    ],
)
def test_a_path_begins_at_the_function_app_wherever_it_is_started(
    said: str, path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_settings({**LOCAL, "SHIPMATE_TARGETS": said}).targets == path
    assert (ROOT / "host.json").exists()


@pytest.mark.parametrize(
    ("said", "on"), [("True", True), ("true", True), ("False", False), ("", False), ("1", False), ("yes", False)]
)
def test_sign_in_is_on_where_app_service_says_so(said: str, on: bool) -> None:
    assert read_settings({**LOCAL, "WEBSITE_AUTH_ENABLED": said}).sign_in is on


def test_the_targets_file_beside_host_json_is_packaged() -> None:
    assert json.loads((ROOT / "local.settings.sample.json").read_text())["Values"]["SHIPMATE_TARGETS"] == "targets.yaml"
    patterns = (ROOT / ".funcignore").read_text().split()
    assert [pattern for pattern in patterns if fnmatch("targets.yaml", pattern)] == []


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        pytest.param("SHIPMATE_STORAGE", "", "SHIPMATE_STORAGE is missing: expected a storage connection", id="none"),
        pytest.param("SHIPMATE_STORAGE", "http://x.blob.core.windows.net", "is neither https://<account>", id="http"),
        pytest.param(
            "SHIPMATE_STORAGE", "https://127.0.0.1:10000/dev", "is neither https://<account>", id="no account"
        ),
        pytest.param("SHIPMATE_STORAGE", "AccountName=;AccountKey=x", "with AccountName", id="an empty account"),
        pytest.param("SHIPMATE_REGISTRY", "  ", "SHIPMATE_REGISTRY is missing: expected <name>.azurecr.io", id="blank"),
        pytest.param("SHIPMATE_REGISTRY", "ftp://r.test", "expected a login server such as", id="ftp"),
        pytest.param("SHIPMATE_REGISTRY", "r.test/team", "expected a login server such as", id="a path"),
        pytest.param("SHIPMATE_REGISTRY", "r.test?x=1", "expected a login server such as", id="a query"),
        pytest.param("SHIPMATE_REGISTRY", "https://", "expected a login server such as", id="no host"),
        pytest.param("SHIPMATE_REGISTRY", "r.test:many", "expected <name>.azurecr.io", id="no port"),
        pytest.param("SHIPMATE_REGISTRY", "https://[::1", "expected <name>.azurecr.io", id="no address"),
        pytest.param("SHIPMATE_REGISTRY", "ana:pw@r.test", "expected a login server alone", id="a password"),
        pytest.param("SHIPMATE_REGISTRY", "http://r.test", "plain http is for registries on this machine", id="plain"),
        pytest.param(
            "SHIPMATE_CLUSTER", "", "SHIPMATE_CLUSTER is missing: expected kubeconfig:<path>", id="no cluster"
        ),
        pytest.param("SHIPMATE_TARGETS", "", "SHIPMATE_TARGETS is missing: expected the path", id="no targets"),
        pytest.param("SHIPMATE_TARGETS", "~nobody-here/t.yaml", "there is no such home directory", id="no home"),
        pytest.param("SHIPMATE_STALLED_SECONDS", "soon", "is 'soon': expected seconds", id="no number"),
        pytest.param("SHIPMATE_STALLED_SECONDS", "0", "more than 0 and less than a day", id="no time"),
        pytest.param("SHIPMATE_STALLED_SECONDS", "nan", "more than 0 and less than a day", id="not a number"),
        pytest.param("SHIPMATE_STALLED_SECONDS", "86400", "more than 0 and less than a day", id="a day"),
    ],
)
def test_a_mistake_names_the_key_and_what_it_should_be(key: str, value: str, words: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        read_settings({**LOCAL, key: value})
    assert key in str(caught.value)
    assert words in str(caught.value)
    assert "pw" not in str(caught.value)


IDENTITY = {key: value for key, value in AZURE.items() if not key.startswith("AzureWebJobs")}


@pytest.mark.parametrize(
    ("said", "queue_storage"),
    [
        pytest.param({"__accountName": "funcstore"}, "https://funcstore.queue.core.windows.net", id="a name"),
        pytest.param(
            {"__queueServiceUri": "https://funcstore.queue.core.windows.net/"},
            "https://funcstore.queue.core.windows.net",
            id="an address",
        ),
        pytest.param(
            {"__queueServiceUri": "https://funcstore.z07.queue.storage.azure.net"},
            "https://funcstore.z07.queue.storage.azure.net",
            id="an address in a DNS zone",
        ),
        pytest.param(
            {"__accountName": "funcstore", "__queueServiceUri": "https://other.queue.core.windows.net"},
            "https://funcstore.queue.core.windows.net",
            id="both: the host takes the name",
        ),
        pytest.param({"": "AccountName=funcstore", "__accountName": "other"}, "AccountName=funcstore", id="a key"),
    ],
)
def test_the_queue_is_where_the_functions_host_has_it(said: dict[str, str], queue_storage: str) -> None:
    chosen = {f"AzureWebJobsStorage{key}": value for key, value in said.items()}
    assert read_settings({**IDENTITY, **chosen}).queue_storage == queue_storage


def test_the_queue_needs_an_account_where_storage_is_a_url() -> None:
    with pytest.raises(Misconfigured, match=r"none of the settings AzureWebJobsStorage, .*__queueServiceUri is there"):
        read_settings(IDENTITY)


@pytest.mark.parametrize(
    "address",
    [
        "funcstore",
        "http://funcstore.queue.core.windows.net",
        "https://funcstore.queue.core.windows.net/work",
        "https://funcstore.queue.core.windows.net?sig=secret",
    ],
)
def test_an_address_of_the_queue_is_one(address: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        read_settings({**IDENTITY, "AzureWebJobsStorage__queueServiceUri": address})
    assert str(caught.value) == (
        "the setting AzureWebJobsStorage__queueServiceUri is no address of a queue service: "
        "expected https://<account>.queue.core.windows.net"
    )


@pytest.mark.parametrize("host", ["modelstore.z12.blob.storage.azure.net", "modelstore.blob.core.windows.net"])
def test_an_account_is_known_by_its_name_in_a_dns_zone_too(host: str) -> None:
    settings = read_settings({**AZURE, "SHIPMATE_STORAGE": f"https://{host}"})
    assert (settings.storage, settings.account) == (f"https://{host}", "modelstore")


CHINA = {
    "SHIPMATE_STORAGE": "https://modelstore.blob.core.chinacloudapi.cn",
    "SHIPMATE_REGISTRY": "teamreg.azurecr.cn",
    "AzureWebJobsStorage__accountName": "",
    "AzureWebJobsStorage__queueServiceUri": "https://funcstore.queue.core.chinacloudapi.cn",
}


@pytest.mark.parametrize(
    ("key", "value", "suffix"),
    [
        pytest.param("SHIPMATE_STORAGE", CHINA["SHIPMATE_STORAGE"], "core.chinacloudapi.cn", id="storage"),
        pytest.param("SHIPMATE_REGISTRY", "teamreg.azurecr.us", "azurecr.us", id="a registry"),
        pytest.param(
            "SHIPMATE_STORAGE",
            "AccountName=modelstore;AccountKey=pw;EndpointSuffix=core.usgovcloudapi.net",
            "core.usgovcloudapi.net",
            id="a connection string",
        ),
    ],
)
def test_a_cluster_is_not_looked_for_in_another_cloud(key: str, value: str, suffix: str) -> None:
    queue = {name: CHINA[name] for name in CHINA if name.startswith("AzureWebJobs")}
    with pytest.raises(Misconfigured) as caught:
        read_settings({**AZURE, **queue, key: value})
    assert str(caught.value) == (
        f"SHIPMATE_CLUSTER begins with aks:, which is asked of Azure's public cloud, and {key} is in {suffix}: "
        "use in-cluster or kubeconfig:<path>#<context>"
    )


def test_a_cluster_that_need_not_be_looked_for_may_be_in_any_cloud() -> None:
    settings = read_settings({**AZURE, **CHINA, "SHIPMATE_CLUSTER": "in-cluster"})
    assert (settings.account, settings.registry_name) == ("modelstore", "teamreg")
    assert settings.queue_storage == "https://funcstore.queue.core.chinacloudapi.cn"


def test_a_name_alone_does_not_lead_to_a_queue_in_another_cloud() -> None:
    with pytest.raises(Misconfigured) as caught:
        read_settings({**AZURE, "SHIPMATE_STORAGE": CHINA["SHIPMATE_STORAGE"], "SHIPMATE_CLUSTER": "in-cluster"})
    assert str(caught.value) == (
        "the setting AzureWebJobsStorage__accountName is for accounts in core.windows.net, and SHIPMATE_STORAGE is in "
        "core.chinacloudapi.cn: set AzureWebJobsStorage__queueServiceUri instead"
    )


# -- the targets file -----------------------------------------------------------------------------------------------


def document(**changes: Any) -> dict[str, Any]:
    target = {
        "name": "vision",
        "app": {"repository": "vision-app"},
        "model": {"container": "models", "name": "efficientnet-lite"},
        "release": {"repository": "vision"},
        "deployment": {"namespace": "vision", "name": "vision"},
        "public_url": "http://127.77.0.1:8080",
    }
    return {key: value for key, value in {**target, **changes}.items() if value is not ...}


BETA = {"namespace": "beta", "name": "beta", "container": "app"}


def text(*targets: dict[str, Any], **more: Any) -> bytes:
    return yaml.safe_dump({"targets": list(targets), **more}).encode()


def test_a_small_targets_file() -> None:
    target = parse_targets(text(document()), "targets.yaml")["vision"]
    assert isinstance(target, Target)
    assert (target.app.tag, target.model.marker, target.deployment.container) == ("main", "manifest.json", "app")
    assert (target.gate.max_wrong, target.gate.max_moved, target.verify.replies) == (0, None, 5)


@pytest.mark.parametrize("slashes", ["", "/", "//"])
def test_the_public_url_loses_its_last_slash(slashes: str) -> None:
    url = "http://door.test/vision"
    assert parse_targets(text(document(public_url=url + slashes)), "t.yaml")["vision"].public_url == url


def test_several_targets() -> None:
    other = document(
        name="beta", app={"repository": "vision-app", "tag": "next"}, deployment={"namespace": "b", "name": "b"}
    )
    assert list(parse_targets(text(document(), other, version=1), "targets.yaml")) == ["vision", "beta"]


def test_a_targets_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "targets.yaml"
    path.write_bytes(text(document(model={"container": "models", "name": "net", "file": "model.onnx"})))
    assert read_targets(path)["vision"].model.marker == "model.onnx"


def test_a_targets_file_that_is_not_there(tmp_path: Path) -> None:
    words = (
        "SHIPMATE_TARGETS is .*: No such file or directory; it should be the path of the targets file, absolute or rel"
    )
    with pytest.raises(Misconfigured, match=words):
        read_targets(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"targets: [", "t.yaml is no YAML: ", id="no YAML"),
        pytest.param(b"\xff\xfe\x00", "t.yaml is no YAML: ", id="no text"),
        pytest.param(b"targets: 2026-13-45", "t.yaml is no YAML: ", id="a date that no calendar has"),
        pytest.param(b"", "t.yaml: Expected `object`", id="empty"),
        pytest.param(text(), "length >= 1 - at `$.targets`", id="no target"),
        pytest.param(text(document(), version=2), "`$.version`", id="a later version"),
        pytest.param(text(document(app=...)), "missing required field `app` - at `$.targets[0]`", id="a key missing"),
        pytest.param(text(document(gates={})), "unknown field `gates` - at `$.targets[0]`", id="a key misspelt"),
        pytest.param(
            text(document(gate={"max_wrnog": 1})), "unknown field `max_wrnog` - at `$.targets[0].gate`", id="one deeper"
        ),
        pytest.param(text(document(name="Vision")), "at `$.targets[0].name`", id="no name"),
        pytest.param(
            text(document(app={"repository": "Vision App"})), "at `$.targets[0].app.repository`", id="no repository"
        ),
        pytest.param(text(document(app={"repository": "a//b"})), "`$.targets[0].app.repository`", id="a//b"),
        pytest.param(
            text(document(model={"container": "ab", "name": "net"})),
            "length >= 3 - at `$.targets[0].model.container`",
            id="ab",
        ),
        pytest.param(
            text(document(model={"container": "models", "name": "net", "file": "model.pkl"})),
            "`$.targets[0].model.file`",
            id="a pickle",
        ),
        pytest.param(text(document(public_url="door.test")), "`$.targets[0].public_url`", id="no URL"),
        pytest.param(
            text(document(public_url="http://door.test/?a=b")),
            "has a query or fragment; /score and /version are asked below it, so give scheme, host and path",
            id="a query",
        ),
        pytest.param(text(document(public_url="http://door.test/#x")), "`$.targets[0].public_url`", id="a fragment"),
        pytest.param(
            text(document(public_url="http://10.0.0.256:8080")),
            "'http://10.0.0.256:8080' is no address: Invalid IPv4 address: '10.0.0.256' - at `$.targets[0].public_url`",
            id="a number that no address has",
        ),
        pytest.param(
            text(document(public_url="http://door.test:http")),
            "is no address: Invalid port: 'http' - at `$.targets[0].public_url`",
            id="a port without a number",
        ),
        pytest.param(
            text(document(gate={"max_seconds": 31})), "<= 30.0 - at `$.targets[0].gate.max_seconds`", id="too patient"
        ),
        pytest.param(text(document(quiet_seconds=-1)), ">= 0.0 - at `$.targets[0].quiet_seconds`", id="before now"),
        pytest.param(
            text(document(quiet_seconds=float("inf"))), "<= 86400.0 - at `$.targets[0].quiet_seconds`", id="for ever"
        ),
        pytest.param(text(document(gate={"moved_by": 20})), "<= 1.0 - at `$.targets[0].gate.moved_by`", id="per cent"),
        pytest.param(text(document(verify={"replies": 0})), "`$.targets[0].verify.replies`", id="never asked"),
        pytest.param(
            text(document(), document()), "two targets are called 'vision' - at `$.targets[1].name`", id="twice"
        ),
        pytest.param(
            text(document(release={"repository": "vision-app"})),
            "'vision-app' is an app repository and a release repository at once; releases need",
            id="our own pushes would come back as events",
        ),
        pytest.param(
            text(document(), document(name="beta", release={"repository": "vision-app"}, deployment=BETA)),
            "'vision-app' is an app repository and a release repository at once; releases need a repository of their "
            "own - at `$.targets[1].release.repository`",
            id="another's pushes would come back as events",
        ),
        pytest.param(
            text(
                document(),
                document(name="beta", app={"repository": "vision"}, release={"repository": "beta"}, deployment=BETA),
            ),
            "'vision' is an app repository and a release repository at once; releases need a repository of their own "
            "- at `$.targets[1].app.repository`",
            id="another's releases would come as events",
        ),
        pytest.param(
            text(document(), document(name="beta")),
            "'vision' and 'beta' both own the Deployment vision/vision; a Deployment belongs to one target",
            id="one Deployment twice",
        ),
        pytest.param(
            text(
                document(),
                document(name="beta", app={"repository": "beta-app"}, deployment=BETA),
            ),
            "'vision' and 'beta' share a release repository but no app repository; a release image names",
            id="one pair, two images",
        ),
    ],
)
def test_a_mistake_in_the_targets_file_names_the_key(data: bytes, words: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        parse_targets(data, "t.yaml")
    assert str(caught.value).startswith("t.yaml")
    assert words in str(caught.value)


def test_the_schema_is_that_of_the_classes() -> None:
    assert SCHEMA.read_text() == targets_schema(), "run python -m tools.targets_schema"


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        pytest.param({}, True, id="whole"),
        pytest.param({"name": "Vision"}, False, id="no name"),
        pytest.param({"model": {"container": "a-b", "name": "net"}}, True, id="a short container"),
        pytest.param({"model": {"container": "a--b", "name": "net"}}, False, id="no container"),
        pytest.param({"gate": {"max_wrnog": 1}}, False, id="a key misspelt"),
    ],
)
def test_the_schema_and_the_reader_agree(changes: dict[str, Any], valid: bool) -> None:
    data = {"targets": [document(**changes)]}
    checker = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    assert checker.is_valid(data) is valid
    try:
        parse_targets(yaml.safe_dump(data).encode(), "t.yaml")
    except Misconfigured:
        assert not valid
    else:
        assert valid
