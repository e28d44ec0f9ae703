"""Names: what is taken as a digest, a repository and a tag, and what identifies a pair."""

from collections.abc import Callable

import msgspec
import pytest

from shipmate.core.refs import Digest, Pair, digest_of, hex_of, parse_digest, parse_repository, parse_tag
from shipmate.errors import Invalid

HEX = "0123456789abcdef" * 4


def test_a_digest_is_taken_as_it_is() -> None:
    digest = parse_digest(f"sha256:{HEX}")
    assert digest == f"sha256:{HEX}"
    assert hex_of(digest) == HEX


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(HEX, id="no algorithm"),
        pytest.param(f"sha512:{HEX}{HEX}", id="another algorithm"),
        pytest.param(f"sha256:{HEX[1:]}", id="a digit short"),
        pytest.param(f"sha256:{HEX.upper()}", id="upper case"),
        pytest.param(f"sha256:{HEX}\n", id="a line end behind it"),
        pytest.param(f" sha256:{HEX}", id="a space before it"),
        pytest.param("", id="nothing"),
    ],
)
def test_anything_else_is_no_digest(text: str) -> None:
    with pytest.raises(Invalid, match="is no digest: expected sha256: and 64 lower-case hex digits"):
        parse_digest(text)


def test_the_digest_of_bytes_is_their_sha256() -> None:
    assert digest_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


# distribution-spec, "Pulling manifests"
@pytest.mark.parametrize("text", ["a", "vision-app", "team/vision.app", "a__b", "a--b/c_d", "0/1", "a" * 255])
def test_repository_names(text: str) -> None:
    assert parse_repository(text) == text


@pytest.mark.parametrize(
    "text", ["", "Vision", "/a", "a/", "a//b", "a..b", "a___b", "-a", "a_", "../a", "a b", "a" * 256]
)
def test_no_repository_names(text: str) -> None:
    with pytest.raises(Invalid, match="is no repository name: expected lower-case letters"):
        parse_repository(text)


@pytest.mark.parametrize("text", ["main", "_", "1.0-rc_1", "A" * 128])
def test_tags(text: str) -> None:
    assert parse_tag(text) == text


@pytest.mark.parametrize("text", ["", ".main", "-main", "a/b", "a:b", "A" * 129, "main\n"])
def test_no_tags(text: str) -> None:
    with pytest.raises(Invalid, match="is no tag: expected up to 128 letters"):
        parse_tag(text)


@pytest.mark.parametrize("parse", [parse_digest, parse_repository, parse_tag])
def test_what_is_wrong_is_quoted_in_short(parse: Callable[[str], str]) -> None:
    with pytest.raises(Invalid) as caught:
        parse("!" * 10_000)
    assert len(str(caught.value)) < 250


def test_a_pair_is_known_by_its_key() -> None:
    app, model = digest_of(b"app"), digest_of(b"model")
    pair = Pair(app, model)
    # Whoever changes this value changes the identity of every release that was ever made: raise RECIPE_VERSION for it.
    assert pair.key == "7e26a6672d698e2d7a5497b4760d8282e21f67cebf9ac807f78d2ecaeed3af68"
    assert pair.tag == f"r-{pair.key[:24]}"
    assert Pair(app, model).key == pair.key
    assert Pair(model, app).key != pair.key


def test_a_digest_is_checked_where_it_is_read() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'"sha256:short"', type=Digest)
