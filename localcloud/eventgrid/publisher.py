"""Tell the relay of a push to a registry that does not tell it by itself, with Microsoft's own publisher client.

The demo does it for a registry of the user's own. Azure's registry raises this event for a push, the local cloud's by
its notifications.
"""

from azure.core.credentials import AzureKeyCredential
from azure.eventgrid import EventGridEvent, EventGridPublisherClient, SystemEventNames

from localcloud.eventgrid.subscriptions import ACCESS_KEY, REGISTRY_TOPIC


def publish_push(relay_url: str, repository: str, tag: str, digest: str) -> None:
    """Publish `Microsoft.ContainerRegistry.ImagePushed` to a relay's topic `registry`. Raises AzureError."""
    target = {"repository": repository, "tag": tag, "digest": digest}
    event = EventGridEvent(
        subject=f"{repository}:{tag}",
        event_type=SystemEventNames.ContainerRegistryImagePushedEventName,
        data={"action": "push", "target": target},
        data_version="1.0",
    )
    address = f"{relay_url}/topics/{REGISTRY_TOPIC}/api/events"
    with EventGridPublisherClient(address, AzureKeyCredential(ACCESS_KEY)) as publisher:
        publisher.send(event)
