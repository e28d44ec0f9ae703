"""The patch and its fence: what it tests before it changes anything."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipmate.core.fence import Standing, adopt_patch, classify_fence, fence_patch, raise_fence_patch
from shipmate.core.views import Object, parse_fence, view_deployment
from shipmate.errors import Invalid, Misconfigured, ShipmateError
from tests.core.cluster_objects import IMAGE, PAIR, manifest, view


def test_a_release_is_one_patch_that_tests_what_was_seen_before_it_changes_anything() -> None:
    operations = fence_patch(
        view(), expected_fence=4, new_fence=7, container="app", image=IMAGE, pair=PAIR, release="r-2"
    )
    assert operations == [
        {"op": "test", "path": "/metadata/uid", "value": "u-1"},
        {"op": "test", "path": "/metadata/annotations/shipmate.dev~1fence", "value": "4"},
        {"op": "test", "path": "/spec/template/spec/containers/1/name", "value": "app"},
        {"op": "replace", "path": "/metadata/annotations/shipmate.dev~1fence", "value": "7"},
        {"op": "replace", "path": "/spec/template/spec/containers/1/image", "value": IMAGE},
        {"op": "add", "path": "/spec/template/metadata/annotations/shipmate.dev~1pair", "value": PAIR},
        {"op": "add", "path": "/spec/template/metadata/annotations/shipmate.dev~1release", "value": "r-2"},
        {
            "op": "add",
            "path": "/metadata/annotations/kubernetes.io~1change-cause",
            "value": f"shipmate r-2: pair {PAIR[:12]}, fence 7",
        },
    ]


def test_a_template_without_annotations_gets_them_only_if_nobody_wrote_some_since() -> None:
    raw = manifest()
    del raw["spec"]["template"]["metadata"]["annotations"]
    deployment = view_deployment(raw)
    operations = fence_patch(
        deployment, expected_fence=4, new_fence=5, container="app", image=IMAGE, pair=PAIR, release="r-2"
    )
    path = "/spec/template/metadata/annotations"
    guard = operations.index({"op": "test", "path": path, "value": None})
    assert operations[guard + 1] == {"op": "add", "path": path, "value": {}}
    assert deployment.pair is None
    assert deployment.release is None


def test_a_hold_raises_the_fence_and_touches_no_template() -> None:
    assert raise_fence_patch(view(), expected_fence=4, new_fence=5) == [
        {"op": "test", "path": "/metadata/uid", "value": "u-1"},
        {"op": "test", "path": "/metadata/annotations/shipmate.dev~1fence", "value": "4"},
        {"op": "replace", "path": "/metadata/annotations/shipmate.dev~1fence", "value": "5"},
    ]


@pytest.mark.parametrize(
    ("annotations", "between"),
    [
        pytest.param(
            {"a": "b"},
            [{"op": "test", "path": "/metadata/annotations/shipmate.dev~1fence", "value": None}],
            id="annotations are there",
        ),
        pytest.param(
            None,
            [
                {"op": "test", "path": "/metadata/annotations", "value": None},
                {"op": "add", "path": "/metadata/annotations", "value": {}},
            ],
            id="none are",
        ),
    ],
)
def test_adoption_adds_fence_0_if_there_is_none(annotations: Object | None, between: list[Object]) -> None:
    deployment = view(annotations=annotations)
    assert deployment.fence is None
    assert adopt_patch(deployment) == [
        {"op": "test", "path": "/metadata/uid", "value": "u-1"},
        *between,
        {"op": "add", "path": "/metadata/annotations/shipmate.dev~1fence", "value": "0"},
    ]


@pytest.mark.parametrize(
    ("current", "mine", "standing"),
    [
        (None, 1, Standing.UNADOPTED),
        (4, 4, Standing.APPLIED),
        (5, 4, Standing.SUPERSEDED),
        (3, 4, Standing.PATCHABLE),
    ],
)
def test_how_an_intent_stands(current: int | None, mine: int, standing: Standing) -> None:
    assert classify_fence(current, mine) is standing


@given(st.integers(0, 10**18 - 1))
def test_every_fence_is_read_as_it_is_written(fence: int) -> None:
    assert parse_fence(str(fence)) == fence


@pytest.mark.parametrize("text", ["", "x", "-1", "007", "1.0", "1" * 20, " 1"])
def test_a_fence_that_somebody_else_wrote_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(Misconfigured, match=r"which is no fence: somebody else wrote it\. Remove it, and"):
        parse_fence(text)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"new_fence": 4}, Invalid, "the fence must rise: 4 does not outrank 4"),
        ({"image": "registry.test/vision:main"}, Invalid, "'registry.test/vision:main' names no digest"),
        (
            {"container": "web"},
            Misconfigured,
            "vision/vision has no container 'web', only proxy, app: correct deployment.container",
        ),
    ],
)
def test_patches_that_must_not_be_made(changes: dict[str, Any], error: type[ShipmateError], words: str) -> None:
    wanted: dict[str, Any] = {"expected_fence": 4, "new_fence": 5, "container": "app", "image": IMAGE, **changes}
    with pytest.raises(error, match=words):
        fence_patch(view(), pair=PAIR, release="r-2", **wanted)
