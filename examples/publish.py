"""Publish a model folder to Blob Storage: `python -m examples.publish FOLDER PREFIX`.

Every file first, the manifest last and only if there is none yet: a reader that sees the manifest can read all it
lists, and a published version never changes.
"""

import sys
from pathlib import Path

import click
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient, ContainerClient, ContentSettings

MANIFEST = "manifest.json"


class AlreadyPublished(Exception):
    """This version is there already; the message says what to do."""


def publish(folder: Path, container: ContainerClient, prefix: str) -> str:
    """Upload the folder as `<prefix>/…` (such as efficientnet-lite/1.0) and return the manifest's blob name.

    Raises AlreadyPublished if that version is there, ValueError if the folder has no manifest.
    """
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder} has no {MANIFEST}: write the folder with `python -m examples.models`")
    prefix = prefix.strip("/")
    manifest = f"{prefix}/{MANIFEST}"
    if container.get_blob_client(manifest).exists():
        raise _conflict(prefix)
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST):
        with path.open("rb") as data:
            container.upload_blob(f"{prefix}/{path.relative_to(folder).as_posix()}", data, overwrite=True)
    try:
        # overwrite=False sends If-None-Match: *, so of two publishers at once one gets here
        container.upload_blob(
            manifest,
            (folder / MANIFEST).read_bytes(),
            overwrite=False,
            content_settings=ContentSettings(content_type="application/json"),
        )
    except ResourceExistsError as error:
        raise _conflict(prefix) from error
    return manifest


def _conflict(prefix: str) -> AlreadyPublished:
    return AlreadyPublished(f"{prefix} is published already and a version never changes: publish under a new version")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("prefix")
@click.option(
    "--connection-string",
    envvar="AZURE_STORAGE_CONNECTION_STRING",
    required=True,
    help="Of the storage account; from AZURE_STORAGE_CONNECTION_STRING if not given.",
)
@click.option("--container", default="models", show_default=True)
def main(folder: Path, prefix: str, connection_string: str, container: str) -> None:
    """Upload FOLDER as version PREFIX, such as efficientnet-lite/1.0."""
    with BlobServiceClient.from_connection_string(connection_string) as account:
        try:
            blob = publish(folder, account.get_container_client(container), prefix)
        except (AlreadyPublished, ValueError) as error:
            sys.exit(f"✗ {error}")
    print(f"✔ published {container}/{blob}")


if __name__ == "__main__":
    main()
