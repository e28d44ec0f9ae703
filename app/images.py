"""From the bytes a user sent to the numbers a model takes, within limits.

Nothing here trusts its input: formats are a short list, the size is read from the header before a pixel is decoded
(a PNG of 10 kB can hold 81 million pixels), and every refusal is a Problem that says what to send instead.
"""

import io
import math
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from app.problems import Problem, ProblemError

MAX_REQUEST_BYTES = 16 * 1024 * 1024
MAX_IMAGES = 16
MAX_PIXELS = 25_000_000
MAX_PIXELS_A_REQUEST = 100_000_000
FORMATS = ("JPEG", "PNG", "WEBP")

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

REDUCING = 3
"""A picture this many times too large is first averaged down in whole steps: a tenth of the time, the same answers."""

type Tensor = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Preparation:
    """How a model wants its pictures: `input` of the manifest."""

    size: int = 224
    layout: str = "NCHW"
    crop: float = 0.875
    mean: tuple[float, float, float] = (127.0, 127.0, 127.0)
    std: tuple[float, float, float] = (128.0, 128.0, 128.0)
    resample: str = "bicubic"

    @property
    def enough(self) -> int:
        """The short side, in pixels, beyond which a picture's detail is lost on the model."""
        return math.ceil(REDUCING * self.size / self.crop)


def decode(data: bytes, enough: int = MAX_PIXELS) -> Image.Image:
    """Return the picture in RGB, upright as its EXIF orientation says.

    A JPEG is decoded at a half, a quarter or an eighth as long as its short side stays at least `enough` pixels long.
    Raises ProblemError (image-unreadable, image-too-large).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning comes at 89 M pixels, ours is lower
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise ProblemError(
                    Problem(
                        413,
                        "image-too-large",
                        f"The image is {width} x {height} pixels; at most {MAX_PIXELS:,} pixels are taken. "
                        "Send a smaller picture.",
                    )
                )
            picture.draft("RGB", (enough, enough))
            ImageOps.exif_transpose(picture, in_place=True)
            return picture if picture.mode == "RGB" else picture.convert("RGB")
    except UnidentifiedImageError:
        raise _unreadable(
            f"This is no picture in a format that is taken. Send {', '.join(FORMATS[:-1])} or {FORMATS[-1]}."
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise _unreadable(f"The picture is damaged or cut off: {error}. Send the whole file.") from error


def _unreadable(detail: str) -> ProblemError:
    return ProblemError(Problem(422, "image-unreadable", detail))


def prepare(picture: Image.Image, how: Preparation) -> Tensor:
    """Return one picture as the model takes it, without the batch dimension.

    The middle square of `crop` times the short side, resampled to `size`, scaled by (x - mean) / std for each of R, G
    and B with x from 0 to 255.
    """
    width, height = picture.size
    side = max(1, round(min(width, height) * how.crop))
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    steps = side // (REDUCING * how.size)
    square = picture.reduce(steps, box) if steps > 1 else picture.crop(box)
    square = square.resize((how.size, how.size), RESAMPLING[how.resample])
    values = (np.asarray(square, np.float32) - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1) if how.layout == "NCHW" else values, np.float32)


def read(data: bytes, how: Preparation) -> tuple[Tensor, Image.Image]:
    """Return the picture in these bytes as the model takes it, and as a picture; raises ProblemError."""
    picture = decode(data, how.enough)
    return prepare(picture, how), picture


def thumbnail(picture: Image.Image, longest: int = 512) -> bytes:
    """Return a small JPEG of the picture, to show it again; nothing of the original file (place, camera) is in it."""
    small = picture.copy()
    small.thumbnail((longest, longest))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=80, comment=b"")  # the photograph's own would go with it
    return out.getvalue()
