"""Azure Container Registry's locks on images, by Azure's own client.

Its clean-up (retention of untagged manifests, `acr purge`) and people delete images that only a digest names. A lock
keeps the live one and those that one may go back to. The lock is an attribute of the manifest under `/acr/v1/`, which
no other registry has: there `shipmate.wiring` gives the pipeline none of this.

Deletion alone is locked, which is what keeps an image ("Lock a container image" and "Set a retention policy for
untagged manifests" of Azure Container Registry's documentation). Where writing is locked too, as by earlier versions of
Shipmate, the registry refuses to tag even the same image anew.

The client is made for each use, and its package loaded then: release images are locked a few times a day, a function's
cold start should not pay for it, and azure-containerregistry 1.2.0 does not renew a refresh token that it keeps.
"""

from collections.abc import Collection
from contextlib import suppress

from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import DefaultAzureCredential

from shipmate.core.refs import Digest
from shipmate.errors import NotAllowed, Retryable


class AzureImageLocks:
    """Implements `shipmate.ports.ImageLocks`. `url` is a login server, `https://name.azurecr.io`."""

    def __init__(self, url: str, credential: TokenCredential | None = None) -> None:
        self._url = url
        self._credential = credential

    def lock(self, repository: str, keep: Collection[Digest], let_go: Collection[Digest]) -> None:
        """Lock those images to keep that are there, and unlock those to let go. Raises NotAllowed, Retryable.

        Writing is made possible again on both, but for an image to let go that somebody else locked against that alone.
        """
        from azure.containerregistry import ContainerRegistryClient  # noqa: PLC0415 - see above

        credential = self._credential or DefaultAzureCredential()
        free = dict.fromkeys(let_go, True) | dict.fromkeys(keep, False)
        what = f"the locks on images of {repository} in {self._url}"
        try:
            with ContainerRegistryClient(
                self._url, credential, retry_total=2, connection_timeout=5, read_timeout=20
            ) as client:
                for image in client.list_manifest_properties(repository):
                    wanted = free.get(Digest(image.digest))
                    if wanted is None:
                        continue
                    is_done = image.can_delete if wanted else (image.can_write and not image.can_delete)
                    if not is_done:
                        with suppress(ResourceNotFoundError):  # deleted meanwhile: a build finds out when it matters
                            client.update_manifest_properties(
                                repository, image.digest, can_delete=wanted, can_write=True
                            )
        except ResourceNotFoundError:  # no such repository
            return
        except ClientAuthenticationError as error:
            raise NotAllowed(f"{what}: {_words(error)}; {_NEEDED}") from error
        except HttpResponseError as error:
            if error.status_code == 403:
                raise NotAllowed(f"{what}: {_words(error)}; {_NEEDED}") from error
            raise Retryable(f"{what}: {_words(error)}") from error
        except AzureError as error:
            raise Retryable(f"{what}: {_words(error)}") from error


_NEEDED = "Shipmate's identity needs the right to read and write metadata there (Container Registry Repository Writer)"


def _words(error: AzureError) -> str:
    return str(error.message).strip().splitlines()[0]
