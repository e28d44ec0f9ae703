"""What Prometheus reads at /metrics. Labels never carry a digest or anything a user sent."""

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.lifecycle import Lifecycle

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST
METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS"})


class Metrics:
    """The numbers of one worker (there is one worker a pod, so they are the pod's)."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self.registry = CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        self._lifecycle = lifecycle
        self.requests = Counter(
            "app_requests", "Requests answered", ["route", "method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "app_request_seconds",
            "Time to the answer",
            ["route"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.images = Counter("app_images_scored", "Images scored", registry=self.registry)
        Gauge("app_ready", "1 if the app is ready", registry=self.registry).set_function(
            lambda: float(lifecycle.problem is None)
        )
        Gauge("app_draining", "1 if the app was told to drain", registry=self.registry).set_function(
            lambda: float(lifecycle.draining)
        )
        self._info = Gauge(
            "app_info", "What runs here; always 1", ["app_version", "model", "model_version"], registry=self.registry
        )

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Note one answer."""
        self.requests.labels(route, method if method in METHODS else "other", str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all numbers in Prometheus's text format."""
        known = self._lifecycle.manifest
        self._info.clear()
        self._info.labels(
            self._lifecycle.settings.app_version, known.name if known else "none", known.version if known else "none"
        ).set(1)
        return prometheus_client.generate_latest(self.registry)
