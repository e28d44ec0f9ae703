"""Decoding and preparing pictures, without a server."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from app import images
from app.images import Preparation
from app.problems import ProblemError
from tests.app.pictures import bomb, chunk, jpeg_of_scans, png, png_header, webp_header, with_exif


@pytest.mark.parametrize("kind", images.FORMATS)
def test_formats_that_are_taken(kind: str) -> None:
    assert images.decode(png(20, 10, kind=kind)).size == (20, 10)


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        pytest.param(b"", 422, "no picture in a format that is taken. Send JPEG, PNG or WEBP.", id="empty"),
        pytest.param(b"hello", 422, "no picture in a format that is taken", id="text"),
        pytest.param(png(9, 9, kind="GIF"), 422, "no picture in a format that is taken", id="gif"),
        pytest.param(png(600, 600, kind="JPEG")[:900], 422, "damaged or cut off", id="cut-off"),
        pytest.param(bomb(), 413, "9000 x 9000 pixels; at most 25,000,000 pixels are taken", id="bomb"),
        pytest.param(
            png_header(1, 25_000_000), 413, "1 x 25000000 pixels; its longest side may have 65,535. Send a", id="tall"
        ),
        pytest.param(png_header(65_536, 1), 413, "65536 x 1 pixels; its longest side may have 65,535", id="wide"),
        pytest.param(
            webp_header(4000, 3151), 413, "4000 x 3151 pixels; at most 12,600,000 pixels of a WEBP are taken", id="webp"
        ),
        pytest.param(jpeg_of_scans(101), 422, "more than 100 scans. Save it again, without progressive", id="scans"),
        pytest.param(
            b"\xff\xd8" + b"\xff\xe5\0\2" * 10_001 + png(9, 9, kind="JPEG")[2:],
            422,
            "more than 10,000 parts. Save the picture again, without metadata.",
            id="segments",
        ),
        pytest.param(png_header(9, 9) + chunk(b"aaBa") * 10_001, 422, "more than 10,000 parts", id="chunks"),
    ],
)
def test_refusals(data: bytes, status: int, message: str) -> None:
    with pytest.raises(ProblemError) as raised:
        images.decode(data)
    assert raised.value.problem.status == status
    assert message in raised.value.problem.detail


def test_a_bomb_is_refused_before_its_pixels_are_made() -> None:
    data = bomb()
    assert len(data) < 12_000
    with pytest.raises(ProblemError) as raised:
        images.decode(data[:64])  # the header alone: who reads on finds it cut off
    assert raised.value.problem.kind == "image-too-large"


def test_exif_orientation_is_followed() -> None:
    picture = Image.new("RGB", (40, 20), "red")
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter
    out = io.BytesIO()
    picture.save(out, "JPEG", exif=exif)
    assert images.decode(out.getvalue()).size == (20, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_would(orientation: int) -> None:
    picture = Image.new("RGB", (40, 20))
    picture.paste((255, 255, 255), (0, 0, 10, 10))  # one corner is white
    exif = picture.getexif()
    exif[images.ORIENTATION] = orientation
    out = io.BytesIO()
    picture.save(out, "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(out.getvalue())))
    assert images.decode(out.getvalue()).tobytes() == expected.tobytes()


TURNED = (images.ORIENTATION, 3, 1, b"\6\0\0\0")


@pytest.mark.parametrize(
    ("entries", "size"),
    [
        pytest.param([TURNED, (0x011A, 2, 4, b"abc\0")], (20, 40), id="a-resolution-in-letters"),
        pytest.param([TURNED, (0x0100, 2, 4, b"abc\0")], (20, 40), id="a-width-in-letters"),
        pytest.param([TURNED, (0x8769, 9, 1, b"\xff\xff\xff\xff")], (20, 40), id="more-tags-before-the-file"),
        pytest.param([(images.ORIENTATION, 2, 4, b"abc\0")], (40, 20), id="an-orientation-in-letters"),
        pytest.param([(images.ORIENTATION, 3, 1, b"\x2a\0\0\0")], (40, 20), id="an-orientation-that-is-none"),
        pytest.param([(images.ORIENTATION, 12, 9, b"\xff\xff\xff\xff")], (40, 20), id="nowhere"),
    ],
)
def test_odd_exif_is_no_reason_to_refuse(entries: list[tuple[int, int, int, bytes]], size: tuple[int, int]) -> None:
    assert images.decode(with_exif(*entries)).size == size


def test_what_looks_like_scans_in_a_photograph_that_a_film_follows() -> None:
    photo = jpeg_of_scans(100)
    comment = b"\xff\xfe\x0f\xff" + b"\xff\xda" * 2047 + b"-"
    assert images.decode(photo[:2] + comment + photo[2:] + b"\xff\xda" * 1000).size == (16, 16)
    assert images.decode(png(9, 9) + bytes(1_000_000)).size == (9, 9)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    out = io.BytesIO()
    Image.new(mode, (12, 12)).save(out, "JPEG" if mode == "CMYK" else "PNG")
    assert images.decode(out.getvalue()).mode == "RGB"


def test_scaling_and_layout() -> None:
    picture = Image.new("RGB", (32, 48), (255, 127, 0))
    first = images.prepare(picture, Preparation(size=4))
    last = images.prepare(picture, Preparation(size=4, layout="NHWC"))
    assert first.shape == (3, 4, 4)
    assert first.dtype == np.float32
    assert first.flags.c_contiguous
    np.testing.assert_allclose(first[:, 0, 0], [1.0, 0.0, -127 / 128])
    np.testing.assert_array_equal(last.transpose(2, 0, 1), first)


def test_only_the_middle_is_looked_at() -> None:
    picture = Image.new("RGB", (200, 100), "black")
    picture.paste((255, 255, 255), (60, 10, 140, 90))  # 80 x 80 around the middle
    prepared = images.prepare(picture, Preparation(size=8, crop=0.8, mean=(0, 0, 0), std=(255, 255, 255)))
    np.testing.assert_allclose(prepared, 1.0)


def test_a_large_photo_is_decoded_no_finer_than_the_model_can_see() -> None:
    how = Preparation(size=32)
    rng = np.random.default_rng(1)
    soft = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((1600, 1200))
    out = io.BytesIO()
    soft.save(out, "JPEG", quality=95)
    tensor, picture = images.read(out.getvalue(), how)
    assert picture.size == (200, 150)
    assert min(picture.size) >= how.enough
    whole = images.decode(out.getvalue())
    assert whole.size == (1600, 1200)
    assert np.abs(images.prepare(whole, how) - tensor).mean() < 0.03  # of a range of 2


def test_a_picture_of_one_pixel() -> None:
    assert images.prepare(Image.new("RGB", (1, 1)), Preparation()).shape == (3, 224, 224)


def test_thumbnail_carries_nothing_of_the_file() -> None:
    picture = Image.new("RGB", (2000, 1000), "red")
    picture.info |= {"exif": b"Exif\0\0secret", "comment": b"secret"}
    small = images.thumbnail(picture)
    assert b"secret" not in small
    assert Image.open(io.BytesIO(small)).size == (512, 256)
