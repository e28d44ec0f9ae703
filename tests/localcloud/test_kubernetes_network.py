"""What the cluster remembers of the machine, and commands that the machine does not have."""

import json
from pathlib import Path

import pytest

from localcloud.kubernetes import network
from localcloud.processes import StartError


def test_kernel_settings_are_remembered_once_a_boot(tmp_path: Path) -> None:
    file = tmp_path / "sysctls.json"
    network.remember_sysctls(file)
    values = json.loads(file.read_text())["values"]
    assert set(values) == {*network.SYSCTLS_OF_KUBELET, *network.SYSCTLS_OF_PROXY}
    ours = json.dumps({"boot": network.boot_id(), "values": {}})
    file.write_text(ours)
    network.remember_sysctls(file)
    assert file.read_text() == ours


@pytest.mark.parametrize("left", ["", "\0\0\0", '{"boot": "another', '{"boot": "another", "values": {"x": "1"}}'])
def test_what_an_earlier_boot_left_is_not_set_back(tmp_path: Path, left: str) -> None:
    file = tmp_path / "sysctls.json"
    file.write_text(left)
    network.restore_sysctls(file)
    assert not file.exists()
    file.write_text(left)
    network.remember_sysctls(file)
    assert json.loads(file.read_text())["boot"] == network.boot_id()


def test_a_command_that_is_not_there_is_told_with_what_installs_it() -> None:
    for ask in (network.run, network.succeeds):
        with pytest.raises(StartError, match=r"no-such-command is not there: .* your PATH lacks /usr/sbin \(`su -`"):
            ask("no-such-command", "--version")
