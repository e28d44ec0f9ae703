"""What targets run on in a cluster: namespace, Deployment, Service and the controller's rights, from k8s/.

`localcloud.cloud` applies it before a Functions host starts. A user's own cluster gets the same.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localcloud.config import Cloud
from localcloud.processes import StartError

OVERLAYS = Path(__file__).resolve().parents[1] / "k8s" / "overlays"
DEPLOYMENT = "vision"


@dataclass(frozen=True)
class TargetCluster:
    """A cluster as its administrator reaches it: a kubectl, a kubeconfig and one of its contexts."""

    kubectl: str
    kubeconfig: Path
    context: str

    def run(self, *arguments: str, may_fail: bool = False) -> str:
        """Return what kubectl printed, empty if it may fail and did. Raises StartError with its words."""
        command = [self.kubectl, f"--kubeconfig={self.kubeconfig}", f"--context={self.context}", *arguments]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            if may_fail:
                return ""
            raise StartError(f"kubectl {' '.join(arguments[:3])} failed: {finished.stderr.strip()}")
        return finished.stdout

    def apply_target(self, cloud: Cloud, namespace: str) -> None:
        """Apply k8s/overlays/local for a namespace and a cloud's registry; what is released there stays."""
        overlay = "local-released" if self._is_released(namespace) else "local"
        folder = cloud.state / "k8s" / namespace
        folder.mkdir(parents=True, exist_ok=True)
        base = Cloud("demo").registry
        document = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": namespace,
            "resources": [os.path.relpath(OVERLAYS / overlay, folder.resolve())],
            "images": [{"name": f"{base}/vision-app", "newName": f"{cloud.registry}/vision-app"}],
        }
        (folder / "kustomization.yaml").write_text(json.dumps(document, indent=2))
        self.run("apply", "--server-side", "-k", str(folder))

    def _is_released(self, namespace: str) -> bool:
        path = "jsonpath={.spec.template.metadata.annotations['shipmate\\.dev/release']}"
        return bool(self.run("get", "deployment", DEPLOYMENT, "-n", namespace, "-o", path, may_fail=True))

    def public_url(self, namespace: str, service: str = DEPLOYMENT) -> str | None:
        """Return where users ask, None while the Service has no address."""
        found = json.loads(self.run("get", "service", service, "-n", namespace, "-o", "json"))
        ingress: Sequence[dict[str, str]] = found["status"].get("loadBalancer", {}).get("ingress", [])
        if not ingress:
            return None
        return f"http://{ingress[0].get('ip') or ingress[0]['hostname']}:{found['spec']['ports'][0]['port']}"


def of_context(context: str) -> TargetCluster:
    """Return the cluster of a context of the user's own kubeconfig. Raises StartError if kubectl is not there."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise StartError(
            "kubectl is not installed; it came with your cluster's tools, or see kubernetes.io/docs/tasks/tools"
        )
    first = os.environ.get("KUBECONFIG", "").partition(os.pathsep)[0]
    return TargetCluster(kubectl, Path(first) if first else Path.home() / ".kube" / "config", context)
