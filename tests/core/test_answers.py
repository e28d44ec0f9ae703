"""What the scoring application answers, read."""

import json

import pytest

from shipmate.core.answers import Answer, Version, parse_answer, parse_version, question
from shipmate.errors import Retryable

HEADERS = {
    "X-Model-Digest": "sha256:1",
    "X-Model-Version": "1.6",
    "x-app-version": "2.3.0",
    "X-Release": "r-4",
    "content-type": "application/json",
}
BODY = json.dumps({"result": [[[["daisy", 32.5], ["bee", 10], ["vase", 1.25]]], "Computed in 12 ms"]}).encode()


def test_an_answer_is_read_with_who_made_it() -> None:
    assert parse_answer(200, HEADERS, BODY, 0.25) == Answer(
        "sha256:1", "1.6", "2.3.0", "r-4", (("daisy", 0.325), ("bee", 0.1), ("vase", 0.0125)), 0.25
    )


def test_what_reaches_the_ledger_is_cut() -> None:
    labels = [["x" * 1000, 10]] * 50
    found = parse_answer(200, {"X-Release": "r" * 1000}, json.dumps({"result": [[labels]]}).encode(), 0.1)
    assert found.predictions == (("x" * 200, 0.1),) * 5
    assert found.release == "r" * 200
    for body in (b"x" * 5000, json.dumps({"detail": "x" * 5000}).encode()):
        with pytest.raises(Retryable) as raised:
            parse_answer(500, {}, body, 0.1)
        assert str(raised.value) == "/score answered 500: " + "x" * 500


def test_a_reply_without_the_headers_has_empty_words_for_them() -> None:
    assert parse_version({}) == Version("", "", "", "")


def test_a_question_is_a_json_array_of_base64() -> None:
    assert json.loads(question([b"\x00\xff", b"x"])) == {"input": ["AP8=", "eA=="]}


@pytest.mark.parametrize(
    ("status", "headers", "body", "words", "after"),
    [
        (503, {"Retry-After": "7"}, b'{"title": "T", "detail": "no model yet"}', "answered 503: no model yet", 7.0),
        (503, {"retry-after": "Wed, 21 Oct"}, b'{"title": "Busy"}', "answered 503: Busy", None),
        (502, {}, b"<h1>bad gateway</h1>", "answered 502: <h1>bad gateway</h1>", None),
        (500, {}, b"[1]", "answered 500: [1]", None),
        (500, {}, b"", "answered 500: no body", None),
        (200, {}, b"Healthy", "unknown shape: Healthy", None),
        (200, {}, b'{"result": []}', 'unknown shape: {"result": []}', None),
        (200, {}, b'{"result": [[[["daisy", "much"]]]]}', "unknown shape", None),
        (200, {}, b'{"result": [[[3]]]}', "unknown shape", None),
        (200, {}, b'{"result": [[{"daisy": 3}]]}', "unknown shape", None),
        (200, {}, b'{"result": [[[["daisy", NaN]]]]}', "unknown shape", None),
        (200, {}, b'{"result": [[[["daisy", 1e999]]]]}', "unknown shape", None),
        (200, {}, b"[" * 100_000, "unknown shape", None),
        (500, {}, b"[" * 100_000, "answered 500: [[[", None),
    ],
)
def test_anything_else_is_told_with_what_was_said(
    status: int, headers: dict[str, str], body: bytes, words: str, after: float | None
) -> None:
    with pytest.raises(Retryable) as raised:
        parse_answer(status, headers, body, 0.1)
    assert words in str(raised.value)
    assert raised.value.after_seconds == after
