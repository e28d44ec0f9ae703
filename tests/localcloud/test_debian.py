"""Debian's packages: who may install them, and that nothing is started by it."""

import subprocess
from pathlib import Path

import pytest

from localcloud import debian, making


@pytest.mark.parametrize(
    ("system", "user", "path", "message"),
    [
        ("Darwin", 0, None, "needs Linux, and this is Darwin"),
        ("Linux", 0, "/nowhere", "this system has no apt-get"),
        ("Linux", 1000, None, "needs root: it builds images and starts containers"),
    ],
)
def test_a_machine_that_does_not_do_is_told_its_options(
    system: str, user: int, path: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("os.geteuid", lambda: user)
    if path is not None:
        monkeypatch.setenv("PATH", path)
    with pytest.raises(making.SetupError, match=message) as told:
        debian.ensure_packages()
    assert "run this as root on Debian 12" in str(told.value)
    assert "make demo CONTEXT=<kubeconfig context>" in str(told.value)


def test_a_machine_of_another_kind_is_told_which_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(making.SetupError) as told:
        debian.ensure_packages()
    assert str(told.value) == (
        "the local cloud runs on machines that `uname -m` calls x86_64 (amd64) and aarch64 (arm64), and this one is "
        "riscv64: run it on one of those, a virtual machine or a Codespace for example. With a Kubernetes of your own, "
        "its nodes must be of the same kind as that machine"
    )


def test_missing_packages_are_named() -> None:
    assert debian.missing_packages(["dpkg", "no-such-package-anywhere", "coreutils"]) == ["no-such-package-anywhere"]


def test_no_service_is_started_while_packages_are_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(debian, "POLICY_FILE", policy)
    policy.write_text(debian.POLICY)  # what an interrupted run left
    with debian._services_not_started():
        assert subprocess.run([policy], check=False).returncode == 101
    assert not policy.exists()


def test_the_machines_own_policy_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(debian, "POLICY_FILE", policy)
    policy.write_text("#!/bin/sh\nexit 0\n")
    with debian._services_not_started():
        assert policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert policy.exists()
