"""What Azure gives to reach an AKS cluster: tokens, and the credentials of its users."""

import base64
import json
from typing import NamedTuple

import yaml

from tests.fakes.certificates import Authority

RESOURCE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/c"


class GrantedToken(NamedTuple):
    token: str
    expires_on: int


class Credential:
    """Grants tokens that are good for an hour of the test's own clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.granted: list[str] = []

    def get_token(self, *scopes: str) -> GrantedToken:
        self.granted.append(scopes[0])
        return GrantedToken(f"token-{len(self.granted)}", int(self.now) + 3600)


def user_credentials(api_server: str, authority: Authority | None = None) -> bytes:
    ca = authority.pem if authority else b"-----BEGIN CERTIFICATE-----"
    content = {
        "clusters": [
            {
                "name": "c",
                "cluster": {
                    "server": api_server,
                    "certificate-authority-data": base64.b64encode(ca).decode(),
                },
            }
        ],
        "users": [{"name": "u", "user": {"exec": {"command": "kubelogin"}}}],
    }
    value = base64.b64encode(yaml.safe_dump(content).encode()).decode()
    return json.dumps({"kubeconfigs": [{"name": "clusterUser", "value": value}]}).encode()
