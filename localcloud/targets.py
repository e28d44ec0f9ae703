"""What targets run on in a cluster: namespace, Deployment, Service and the controller's rights, from k8s/.

`localcloud.cloud` applies it before a Functions host starts. A user's own cluster gets the same. Each namespace gets
one Deployment, always of the same name.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from localcloud import setup
from localcloud.config import Cloud
from localcloud.processes import StartError
from shipmate.core.targets import DeploymentRef, Target

OVERLAYS = Path(__file__).resolve().parents[1] / "k8s" / "overlays"
DEPLOYMENT, CONTAINER, PORT = "vision", "app", 8000
"""As k8s/base/deployment.yaml has them."""


@dataclass(frozen=True)
class TargetCluster:
    """A cluster as its administrator reaches it: a kubectl, a kubeconfig and one of its contexts."""

    kubectl: str
    kubeconfig: Path
    context: str

    def run(self, *arguments: str, may_fail: bool = False, stdin: str | None = None) -> str:
        """Return what kubectl printed, empty if it may fail and did. Raises StartError with its words."""
        command = [self.kubectl, f"--kubeconfig={self.kubeconfig}", f"--context={self.context}", *arguments]
        finished = subprocess.run(command, capture_output=True, text=True, check=False, input=stdin)
        if finished.returncode != 0:
            if may_fail:
                return ""
            raise StartError(f"kubectl {' '.join(arguments[:3])} failed: {finished.stderr.strip()}")
        return finished.stdout

    def apply_target(self, cloud: Cloud, namespace: str, *, registry: str | None = None) -> None:
        """Apply k8s/overlays/local for a namespace and a registry (None: the cloud's); what is released there stays."""
        overlay = "local-released" if self._is_released(namespace) else "local"
        folder = cloud.state / "k8s" / namespace
        folder.mkdir(parents=True, exist_ok=True)
        base = Cloud("demo").registry
        document = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": namespace,
            "resources": [os.path.relpath(OVERLAYS / overlay, folder.resolve())],
            "images": [{"name": f"{base}/vision-app", "newName": f"{registry or cloud.registry}/vision-app"}],
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

    def node_port(self, namespace: str, service: str = DEPLOYMENT) -> int:
        """Return the port of every node behind which the Service is."""
        found = json.loads(self.run("get", "service", service, "-n", namespace, "-o", "json"))
        return int(found["spec"]["ports"][0]["nodePort"])


def require_deployments_of_base(targets: Iterable[Target]) -> None:
    """Raise StartError if a target is released to a Deployment that `apply_target` does not make."""
    for target in targets:
        named = target.deployment
        made = DeploymentRef(named.namespace, DEPLOYMENT, CONTAINER, PORT)
        if named != made:
            raise StartError(
                f"the targets file: {target.name!r} is released to the Deployment {named.name}, container "
                f"{named.container}, port {named.port}, and what is applied here from k8s/base has other names; "
                f"write deployment: {{namespace: {made.namespace}, name: {made.name}, container: {made.container}, "
                f"port: {made.port}}}"
            )


def of_context(context: str) -> TargetCluster:
    """Return the cluster of a context of the user's own kubeconfig.

    Raises StartError if kubectl or the context is not there, with the contexts that are.
    """
    own = setup.kubernetes_folder() / "kubectl"
    kubectl = shutil.which("kubectl") or (str(own) if own.exists() else None)
    if kubectl is None:
        raise StartError(
            "kubectl is not installed; it came with your cluster's tools, or see kubernetes.io/docs/tasks/tools"
        )
    there: dict[str, Path] = {}
    files = _kubeconfigs()
    for file in files:
        for name in _contexts(file):
            there.setdefault(name, file)
    if context not in there:
        where = ", ".join(str(file) for file in files)
        names = f"there are: {', '.join(sorted(there))}" if there else "it has none: set KUBECONFIG to your kubeconfig"
        raise StartError(f"no context is called {context!r} in {where}; {names}")
    return TargetCluster(kubectl, there[context], context)


def _kubeconfigs() -> list[Path]:
    """Return the user's kubeconfig files, as kubectl looks for them."""
    named = [Path(each) for each in os.environ.get("KUBECONFIG", "").split(os.pathsep) if each]
    return named or [Path.home() / ".kube" / "config"]


def _contexts(file: Path) -> list[str]:
    if not file.exists():
        return []
    try:
        return [str(each["name"]) for each in (yaml.safe_load(file.read_text()) or {}).get("contexts") or ()]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise StartError(f"{file} is no kubeconfig that can be read: {error}") from error
