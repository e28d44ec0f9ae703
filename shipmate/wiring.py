"""The composition root: settings in, a pipeline with its real ports out. Called by the triggers; nothing else is.

Connections are made once a process and shared by its threads. Each call gets a worker name of its own, so that two
invocations in one process are two workers to the ledger.
"""

import dataclasses
import os
from functools import cache
from typing import Any

from azure.identity import DefaultAzureCredential
from azure.storage import blob, queue
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueClient, TextBase64EncodePolicy

from shipmate.commands import Commands
from shipmate.core.intake import Sources
from shipmate.edge.blobs import BlobModels
from shipmate.edge.clock import SystemClock
from shipmate.edge.cluster import Cluster
from shipmate.edge.ledger_store import LedgerStore
from shipmate.edge.probe import Door
from shipmate.edge.queue import StorageQueue
from shipmate.edge.registry import Registry
from shipmate.edge.registry_auth import AZURE_REGISTRIES
from shipmate.edge.registry_locks import AzureImageLocks
from shipmate.edge.storage import transport
from shipmate.pipeline import Pipeline
from shipmate.settings import Settings, read_settings, read_targets
from shipmate.stages.context import Context

BACKOFF_SECONDS = 1
RETRIES = 2
"""Storage is tried again after about 3 and 5 s (backoff + 2 to the power of the attempt), then the work is handed back:
the SDKs begin with 15 s, and Event Grid waits for 30 s in all."""


def pipeline() -> Pipeline:
    """Return a pipeline for one invocation. Raises Misconfigured if the settings or the targets file are wrong."""
    shared = _shared()
    instance = (os.environ.get("WEBSITE_INSTANCE_ID") or f"pid{os.getpid()}")[:12]
    worker = f"{instance}-{shared.context.clock.new_id()[:8]}"
    return dataclasses.replace(shared, context=dataclasses.replace(shared.context, worker=worker))


def commands() -> Commands:
    """Return the commands for one invocation. Raises Misconfigured if the settings or the targets file are wrong."""
    return Commands(pipeline())


@cache
def settings() -> Settings:
    """Return the settings of this process. Raises Misconfigured if they are wrong."""
    return read_settings(os.environ)


@cache
def _shared() -> Pipeline:
    return compose(settings())


def compose(settings: Settings) -> Pipeline:
    """Return a pipeline over the real ports that some settings name. Nothing is connected before it is used.

    Raises Misconfigured if the targets file or a kubeconfig is wrong.
    """
    service, targets = blob_service(settings.storage), read_targets(settings.targets)
    host = settings.registry.partition("://")[2]
    return Pipeline(
        targets=targets,
        sources=Sources(settings.account, settings.registry_name),
        ledgers=LedgerStore(service, settings.ledger_container),
        queue=StorageQueue(_queue_client(settings.queue_storage, settings.queue)),
        context=Context(
            registry=Registry(settings.registry),
            models=BlobModels(service),
            cluster=Cluster.connect(
                settings.cluster,
                registry=host,
                credential=DefaultAzureCredential() if settings.cluster.startswith("aks:") else None,
            ),
            door=Door(timeout_seconds=max(10.0, *(target.gate.max_seconds for target in targets.values()))),
            clock=SystemClock(),
            worker="",
            locks=AzureImageLocks(settings.registry) if host.endswith(AZURE_REGISTRIES) else None,
        ),
        stalled_seconds=settings.stalled_seconds,
    )


def blob_service(storage: str) -> BlobServiceClient:
    """Return the client of a storage account, by its address or its connection string."""
    options: dict[str, Any] = {
        "retry_policy": blob.ExponentialRetry(initial_backoff=BACKOFF_SECONDS, increment_base=2, retry_total=RETRIES),
        "transport": transport(),
    }
    if storage.startswith(("http://", "https://")):
        return BlobServiceClient(storage, credential=DefaultAzureCredential(), **options)
    return BlobServiceClient.from_connection_string(storage, **options)


def _queue_client(storage: str, name: str) -> QueueClient:
    options: dict[str, Any] = {
        "message_encode_policy": TextBase64EncodePolicy(),
        "retry_policy": queue.ExponentialRetry(initial_backoff=BACKOFF_SECONDS, increment_base=2, retry_total=RETRIES),
        "transport": transport(),
    }
    if storage.startswith(("http://", "https://")):
        return QueueClient(storage, name, credential=DefaultAzureCredential(), **options)
    return QueueClient.from_connection_string(storage, name, **options)
