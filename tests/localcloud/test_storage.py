"""Azurite as a program of a cloud."""

from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from localcloud import storage
from localcloud.config import Cloud
from localcloud.processes import StartError
from localcloud.storage import Azurite
from tests.localcloud.functions_host_process import free_port


def test_an_azurite_that_stops_over_what_is_stored_is_told_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "ensure_azurite", lambda: ["sh", "-c", "echo 'Unexpected end of JSON input'; exit 1"])
    azurite = Azurite(tmp_path, free_port(), free_port(), free_port())
    with pytest.raises(
        StartError, match=r"azurite stopped while it was starting; read .*\nUnexpected end of JSON input$"
    ):
        azurite.start()
    with pytest.raises(StartError) as told:
        azurite.start()
    assert str(told.value).endswith(
        "\nIf the machine lost its power or its disk was full, what Azurite stored may be damaged: "
        f"`rm -r {azurite.data}` gives it up, with the ledger in it, and the next start begins anew"
    )


@pytest.mark.azurite
def test_what_is_stored_outlives_a_restart(tmp_path: Path) -> None:
    azurite = Azurite(tmp_path, free_port(), free_port(), free_port())
    program = azurite.start()
    try:
        with BlobServiceClient.from_connection_string(azurite.connection_string) as blobs:
            blobs.create_container("abc").upload_blob("b", b"x")
        with QueueServiceClient.from_connection_string(azurite.connection_string) as queues:
            queues.create_queue("abc").send_message("m")
        pid = program.pid()
        assert azurite.start().pid() == pid  # it runs already
        program.stop()
        assert program.pid() is None
        azurite.start()
        assert program.pid() not in (None, pid)
        with BlobServiceClient.from_connection_string(azurite.connection_string) as blobs:
            assert blobs.get_blob_client("abc", "b").download_blob().readall() == b"x"
        with QueueServiceClient.from_connection_string(azurite.connection_string) as queues:
            assert queues.get_queue_client("abc").receive_message()["content"] == "m"
        assert "PUT /devstoreaccount1/abc/b " in program.log.read_text()
    finally:
        program.stop()


@pytest.mark.azurite
def test_a_cloud_has_one(azurite: Cloud) -> None:
    assert storage.program(azurite).pid() is not None
    with BlobServiceClient.from_connection_string(azurite.connection_string) as blobs:
        assert blobs.account_name == "devstoreaccount1"
        assert blobs.get_service_properties()


def test_it_listens_on_loopback_only() -> None:
    command = storage.program(Cloud("test")).command
    hosts = [command[number + 1] for number, word in enumerate(command) if word.endswith("Host")]
    assert hosts == ["127.0.0.1"] * 3
