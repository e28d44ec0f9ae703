"""The queue that drives targets onward, on Storage Queues.

A message is a target's name and nothing else, base64 as the Functions queue trigger expects by default
(learn.microsoft.com, azure-functions/functions-bindings-storage-queue, `messageEncoding`).
"""

import math
from contextlib import suppress

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError
from azure.storage.queue import QueueClient

from shipmate.errors import Retryable

LONGEST_DELAY_SECONDS = 7 * 24 * 3600
"""A message can be hidden for seven days at most (Put Message, `visibilitytimeout`)."""


class StorageQueue:
    """The queue of target names. Safe to share between threads."""

    def __init__(self, client: QueueClient) -> None:
        self._client = client

    def enqueue(self, target: str, delay_seconds: float = 0) -> None:
        """Have the target advanced, after a delay in whole seconds, rounded up. Raises Retryable."""
        delay = min(max(0, math.ceil(delay_seconds)), LONGEST_DELAY_SECONDS)
        try:
            try:
                self._client.send_message(target, visibility_timeout=delay, time_to_live=-1)
            except ResourceNotFoundError:
                with suppress(ResourceExistsError):  # another worker made it meanwhile
                    self._client.create_queue()
                self._client.send_message(target, visibility_timeout=delay, time_to_live=-1)
        except AzureError as error:
            raise Retryable(
                f"the queue {self._client.queue_name} took no message: {str(error).splitlines()[0]}"
            ) from error
