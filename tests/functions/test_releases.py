"""Who is on record as the author of a command."""

import azure.functions as func
import pytest

from functions.releases import LONGEST_AUTHOR, author_of
from shipmate.errors import Invalid


def request(signed_in: str | None) -> func.HttpRequest:
    headers = {} if signed_in is None else {"X-MS-CLIENT-PRINCIPAL-NAME": signed_in}
    return func.HttpRequest(method="POST", url="/api/targets/vision/hold", body=b"", headers=headers)


@pytest.mark.parametrize(
    ("sign_in", "header", "named", "author"),
    [
        pytest.param(True, "cy@example.org", "ana", "cy@example.org", id="who signed in, whatever the body says"),
        pytest.param(True, "cy@example.org", None, "cy@example.org", id="who signed in"),
        pytest.param(True, None, "ana", "ana", id="a function key without a person"),
        pytest.param(False, "boss@example.org", "ana", "ana", id="a header that anybody can write"),
        pytest.param(False, None, " ana ", "ana", id="whom the body names"),
        pytest.param(True, "Zoë Ångström", None, "Zoë Ångström", id="letters of any language"),
        pytest.param(True, "x" * LONGEST_AUTHOR, None, "x" * LONGEST_AUTHOR, id="the longest"),
    ],
)
def test_the_author(sign_in: bool, header: str | None, named: str | None, author: str) -> None:
    assert author_of(request(header), named, sign_in=sign_in) == author


@pytest.mark.parametrize(
    ("sign_in", "header", "named", "words"),
    [
        pytest.param(False, "boss@example.org", None, "say who asks: sign in, or give", id="a forged header alone"),
        pytest.param(True, None, None, "say who asks", id="nobody"),
        pytest.param(True, "", " ", "say who asks", id="blank"),
        pytest.param(True, "x" * 201, None, "at most 200 characters, and no control characters", id="long"),
        pytest.param(True, "ana\n{}", None, "no control characters", id="a line break signed in"),
        pytest.param(False, None, "ana\x1b[2J", "no control characters", id="an escape in the body"),
    ],
)
def test_no_author(sign_in: bool, header: str | None, named: str | None, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        author_of(request(header), named, sign_in=sign_in)
