"""Decoding and preparing pictures, without a server."""

import io

import numpy as np
import pytest
from PIL import Image

from app import images
from app.images import Preparation
from app.problems import ProblemError
from tests.app.pictures import bomb, png


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
