"""The fence: what a Deployment's patch tests before it changes anything.

Pure: the stages decide by it, and `shipmate.edge.cluster` sends the patches made here.

The fence is a number that the ledger hands out, rising, to each rollout intent, rollback intent and hold. The
Deployment carries the highest one it accepted in the annotation `shipmate.dev/fence`, and every patch first tests that
the annotation still says what the caller saw. The API server evaluates those tests against the very object it replaces
and answers 422 if one fails, so a worker that slept between its decision and its patch changes nothing.
A resourceVersion would not do: it proves that nobody wrote since the read, not since the decision.
"""

from enum import StrEnum
from typing import Any

from shipmate.core.refs import PairKey
from shipmate.core.views import FENCE, PAIR, RELEASE, DeploymentView
from shipmate.errors import Invalid

CHANGE_CAUSE = "kubernetes.io/change-cause"

type Operation = dict[str, Any]
"""One operation of a JSON Patch (RFC 6902)."""


class Standing(StrEnum):
    """How an intent's fence stands to the one a Deployment carries."""

    UNADOPTED = "unadopted"  # the Deployment has no fence yet: send `adopt_patch` first
    APPLIED = "applied"
    SUPERSEDED = "superseded"
    PATCHABLE = "patchable"


def classify_fence(current: int | None, mine: int) -> Standing:
    """Return what a Deployment's fence means for the intent that holds the fence `mine`."""
    if current is None:
        return Standing.UNADOPTED
    if current == mine:
        return Standing.APPLIED
    return Standing.SUPERSEDED if current > mine else Standing.PATCHABLE


def adopt_patch(deployment: DeploymentView) -> list[Operation]:
    """Return the patch that puts a Deployment under the fence, at 0, unless somebody did so since.

    The template is not touched: the API server would not keep an empty map of annotations.
    """
    fence = f"/metadata/annotations/{_escape(FENCE)}"
    absent = [_test(fence, None)]
    if deployment.annotations is None:
        absent = _add_map("/metadata/annotations")
    return [_test("/metadata/uid", deployment.uid), *absent, _add(fence, "0")]


def fence_patch(
    deployment: DeploymentView,
    *,
    expected_fence: int,
    new_fence: int,
    container: str,
    image: str,
    pair: PairKey,
    release: str,
) -> list[Operation]:
    """Return the patch that brings a release to a Deployment and raises its fence, or changes nothing.

    `image` is a reference by digest. Raises Invalid for a fence that does not rise and an image without a digest,
    Misconfigured for an unknown container.
    """
    _must_rise(expected_fence, new_fence)
    if "@sha256:" not in image:
        raise Invalid(f"{image!r} names no digest: a release is only ever deployed as repository@sha256:…")
    index = deployment.index_of(container)
    spot = f"/spec/template/spec/containers/{index}"
    annotations = "/spec/template/metadata/annotations"
    missing = _add_map(annotations) if deployment.template_annotations is None else []
    cause = f"shipmate {release}: pair {pair[:12]}, fence {new_fence}"
    return [
        _test("/metadata/uid", deployment.uid),
        _test(f"/metadata/annotations/{_escape(FENCE)}", str(expected_fence)),
        _test(f"{spot}/name", container),
        *missing,
        _replace(f"/metadata/annotations/{_escape(FENCE)}", str(new_fence)),
        _replace(f"{spot}/image", image),
        _add(f"{annotations}/{_escape(PAIR)}", pair),
        _add(f"{annotations}/{_escape(RELEASE)}", release),
        _add(f"/metadata/annotations/{_escape(CHANGE_CAUSE)}", cause),
    ]


def raise_fence_patch(deployment: DeploymentView, *, expected_fence: int, new_fence: int) -> list[Operation]:
    """Return the patch of a hold: it raises the fence, restarts nothing, and shuts out every intent before it."""
    _must_rise(expected_fence, new_fence)
    fence = f"/metadata/annotations/{_escape(FENCE)}"
    return [
        _test("/metadata/uid", deployment.uid),
        _test(fence, str(expected_fence)),
        _replace(fence, str(new_fence)),
    ]


def _must_rise(expected: int, new: int) -> None:
    if new <= expected:
        raise Invalid(f"the fence must rise: {new} does not outrank {expected}")


def _add_map(path: str) -> list[Operation]:
    """Return what creates a map that was not there, and does not empty one that came since.

    The API server's JSON Patch takes a test for null as a test for absence; RFC 6902 would let it fail.
    """
    return [_test(path, None), _add(path, {})]


def _test(path: str, value: object) -> Operation:
    return {"op": "test", "path": path, "value": value}


def _add(path: str, value: object) -> Operation:
    return {"op": "add", "path": path, "value": value}


def _replace(path: str, value: object) -> Operation:
    return {"op": "replace", "path": path, "value": value}


def _escape(key: str) -> str:
    """Return a key as one segment of a JSON pointer (RFC 6901, section 3)."""
    return key.replace("~", "~0").replace("/", "~1")
