"""`python -m localcloud`, on a machine where nothing runs and nothing may be started."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from localcloud import __main__ as program
from localcloud.cloud import EXAMPLE_TARGETS, LocalCloud
from localcloud.config import Cloud
from localcloud.functions_host.errors import AppError
from localcloud.kubernetes import cluster
from localcloud.kubernetes.layout import default_layout
from localcloud.making import SetupError
from localcloud.processes import Program, StartError
from localcloud.targets import CONTAINER, DEPLOYMENT, PORT


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep state and cache of the local cloud in a folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(program.main, words)


def test_help_names_every_verb() -> None:
    said = run("--help").output
    for verb in ("setup", "up", "down", "status", "demo"):
        assert f"  {verb} " in said


def test_nothing_runs() -> None:
    assert (run("status").stdout, run("status", "--running").stdout) == ("○ nothing runs\n", "")


def test_there_is_nothing_to_stop() -> None:
    done = run("down")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "○ not running: demo\n")
    assert "not running: demo, test, bench, drill, e2e, cluster" in run("down", "--all").stderr


def test_an_unknown_cloud_is_wrong_usage() -> None:
    refused = run("down", "prod")
    assert refused.exit_code == 2
    assert "'prod' is not one of 'demo', 'test', 'bench', 'drill', 'e2e', 'cluster'" in refused.stderr


def test_an_interrupt_says_what_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(program.SETUP, "packages", interrupted)  # type: ignore[misc] # a mapping to everybody else
    stopped = run("setup", "packages")
    assert (stopped.exit_code, stopped.stderr) == (
        130,
        "✗ interrupted: what was started goes on (`make down` stops it); run it again, it goes on where it was\n",
    )


def test_what_runs_is_shown_and_stopped() -> None:
    cloud = LocalCloud(Cloud("drill"))
    sleeper = Program("azurite", ["sleep", "60"], cloud.cloud.state)
    pid = sleeper.start(lambda: True)
    try:
        assert run("status", "--running").stdout == "drill\n"
        shown = run("status").stdout
        assert "cloud drill\n  ✔ runs     azurite    http://127.0.0.1:17300/devstoreaccount1" in shown
        assert "✗ stopped  functions  http://127.0.0.1:17330" in shown
        assert str(cloud.cloud.state / "logs" / "azurite.log") in shown
        assert next(part for part in cloud.status() if part.name == "azurite").pid == pid
        assert run("down", "drill", "test").stderr == "✔ stopped   drill\n"
        assert sleeper.pid() is None
    finally:
        sleeper.stop()


@pytest.mark.parametrize(
    "error", [StartError("azurite stopped; read the log"), SetupError("make room"), AppError("no key file")]
)
def test_trouble_is_one_sentence(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def trouble(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(LocalCloud, "start", trouble)
    ended = run("up")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (1, "", f"✗ {error}\n")


def test_a_full_disk_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch, machine: Path) -> None:
    def trouble(*_: object, **__: object) -> None:
        Path("/dev/full").write_text("x")

    monkeypatch.setattr(LocalCloud, "start", trouble)
    ended = run("up")
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == (
        "✗ [Errno 28] No space left on device: make room and run it again, it goes on where it was. "
        f"`du -sh {machine}/cache/shipmate {machine}/state/shipmate` shows what the local cloud keeps\n"
    )


def test_other_trouble_with_files_is_not_taken_for_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def trouble(*_: object, **__: object) -> None:
        Path("/dev/null/x").read_text()

    monkeypatch.setattr(LocalCloud, "start", trouble)
    assert isinstance(run("up").exception, NotADirectoryError)


def test_what_a_cluster_left_that_no_longer_runs_is_taken_away(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = default_layout().state / cluster.SYSCTLS
    remembered.parent.mkdir(parents=True)
    remembered.write_text("{}")
    monkeypatch.setattr(cluster, "down", remembered.unlink)
    assert run("down").stderr == "○ not running: demo\n"
    assert run("down", "--all").stderr == "✔ cleaned   what a Kubernetes left that no longer runs\n"
    assert run("down", "cluster").stderr == "○ not running: cluster\n"


def test_a_wrong_targets_file_is_told_before_anything_starts(tmp_path: Path) -> None:
    wrong = tmp_path / "targets.yaml"
    wrong.write_text("targets: [{name: vision}]")
    ended = run("up", "--targets", str(wrong))
    assert ended.exit_code == 1
    assert ended.stderr == "✗ the targets file: Object missing required field `app` - at `$.targets[0]`\n"
    assert not LocalCloud(Cloud("demo")).is_running()


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("name", "cats", "cats, container app, port 8000"),
        ("container", "cats", "vision, container cats, port 8000"),
        ("port", 8080, "vision, container app, port 8080"),
    ],
)
def test_a_deployment_that_would_not_be_made_is_told_before_anything_starts(
    tmp_path: Path, key: str, value: object, named: str
) -> None:
    document = yaml.safe_load(EXAMPLE_TARGETS.read_text())
    document["targets"][0]["deployment"][key] = value
    other = tmp_path / "targets.yaml"
    other.write_text(yaml.safe_dump(document))
    ended = run("up", "--targets", str(other))
    assert ended.exit_code == 1
    assert ended.stderr == (
        f"✗ the targets file: 'vision' is released to the Deployment {named}, and what is applied here from k8s/base "
        "has other names; write deployment: {namespace: vision, name: vision, container: app, port: 8000}\n"
    )
    assert not LocalCloud(Cloud("demo")).targets_file.exists()


def test_the_deployment_that_is_made_is_that_of_k8s_base() -> None:
    made = yaml.safe_load((Path(__file__).parents[2] / "k8s" / "base" / "deployment.yaml").read_text())
    (container,) = made["spec"]["template"]["spec"]["containers"]
    found = (made["metadata"]["name"], container["name"], container["ports"][0]["containerPort"])
    assert found == (DEPLOYMENT, CONTAINER, PORT)


def test_the_app_settings_are_those_of_the_sample() -> None:
    sample = json.loads((Path(__file__).parents[2] / "local.settings.sample.json").read_text())["Values"]
    assert set(LocalCloud(Cloud("test")).app_settings("kubeconfig:x#y")) == set(sample)


def test_a_functions_host_that_read_other_targets_is_stopped() -> None:
    local = LocalCloud(Cloud("drill"))
    host = Program("functions", ["sleep", "60"], local.cloud.state)
    text = EXAMPLE_TARGETS.read_text()
    local._write_targets(text)
    host.start(lambda: True)
    try:
        local._write_targets(text)
        assert host.pid() is not None
        local._write_targets(text.replace("127.77.0.1", "127.77.0.2"))
        assert host.pid() is None
    finally:
        host.stop()


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("name.azurecr.io", "https://name.azurecr.io"),
        ("https://registry.test:5000/", "https://registry.test:5000"),
        ("http://localhost:5001", "http://localhost:5001"),
        ("http://127.0.0.1:5001/", "http://127.0.0.1:5001"),
    ],
)
def test_a_registry_of_the_users_own_is_named_as_people_write_it(text: str, url: str) -> None:
    assert program.registry_address(text) == url
    assert LocalCloud(Cloud("demo"), "theirs", url).registry == url.partition("://")[2]
    assert LocalCloud(Cloud("demo"), "theirs", url).app_settings("x")["SHIPMATE_REGISTRY"] == url


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://registry.test:5000", "plain http is for a registry on this machine (http://localhost:<port>)"),
        ("ftp://registry.test", "write <name>.azurecr.io, or http://localhost:<port>"),
        ("registry.test/vision", "write <name>.azurecr.io, or http://localhost:<port>"),
        ("me@registry.test", "write <name>.azurecr.io, or http://localhost:<port>"),
    ],
)
def test_a_registry_that_shipmate_would_not_take_is_refused(text: str, words: str) -> None:
    refused = run("demo", "--context", "theirs", "--registry", text)
    assert refused.exit_code == 2
    assert words in " ".join(refused.stderr.split()).replace("│ ", "")


def test_a_registry_of_the_users_own_needs_a_cluster_of_theirs() -> None:
    refused = run("demo", "--registry", "name.azurecr.io")
    assert refused.exit_code == 2
    assert "a registry of yours goes with a cluster of yours: name its --context too" in refused.stderr
