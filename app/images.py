"""From the bytes a user sent to the numbers a model takes, within limits.

Nothing here trusts its input: formats are a short list, the size is read from the header before a pixel is decoded
(a PNG of 10 kB can hold 81 million pixels), and every refusal is a Problem that says what to send instead.
One picture takes at most 200 MiB while it is decoded, 8 bytes a pixel where it has an alpha channel or is turned, but
for progressive JPEGs of four colours: 290 MiB.
"""

import io
import math
import re
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from app.problems import Problem, ProblemError

MAX_REQUEST_BYTES = 16 * 1024 * 1024
MAX_IMAGES = 16
MAX_PIXELS = 25_000_000
MAX_PIXELS_OF_WEBP = 12_600_000
"""Its decoder takes 16 bytes a pixel, twice what the others take."""

MAX_PIXELS_A_REQUEST = 100_000_000
MAX_SIDE = 65_535
"""The longest that a JPEG can have; Pillow keeps 8 bytes for each row of a picture, however narrow it is."""

MAX_PARTS = 10_000
"""Segments of a JPEG, chunks of a PNG: Pillow keeps a list of them, and 16 MiB hold four million."""

MAX_SCANS = 100
"""Each scan of a JPEG, empty ones too, costs a walk over all its pixels. Encoders make about ten."""

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


UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation."""

ORIENTATION = 0x0112


def decode(data: bytes, enough: int = MAX_PIXELS) -> Image.Image:
    """Return the picture in RGB, upright as its EXIF orientation says.

    A JPEG is decoded at a half, a quarter or an eighth as long as its short side stays at least `enough` pixels long.
    Raises ProblemError (image-unreadable, image-too-large).
    """
    _check_parts(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning comes at 89 M pixels, ours is lower
            picture: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_size(picture)
            picture.draft("RGB", (enough, enough))
            picture.load()
            if (turn := UPRIGHT.get(_orientation(picture))) is not None:
                picture = picture.transpose(turn)
            return picture if picture.mode == "RGB" else picture.convert("RGB")
    except UnidentifiedImageError:
        raise _unreadable(
            f"This is no picture in a format that is taken. Send {', '.join(FORMATS[:-1])} or {FORMATS[-1]}."
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise _unreadable(f"The picture is damaged or cut off: {error}. Send the whole file.") from error


def _check_size(picture: Image.Image) -> None:
    """Raise ProblemError if the picture, of which the header alone was read, would take too much memory."""
    width, height = picture.size
    most = MAX_PIXELS_OF_WEBP if picture.format == "WEBP" else MAX_PIXELS
    if width * height > most:
        kind = f" of a {picture.format}" if most < MAX_PIXELS else ""
        raise _too_large(picture.size, f"at most {most:,} pixels{kind} are taken")
    if max(width, height) > MAX_SIDE:
        raise _too_large(picture.size, f"its longest side may have {MAX_SIDE:,}")


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation of a loaded picture, 1 (upright) where it has none or one that is unreadable."""
    try:
        return int(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - of damaged EXIF Pillow raises whatever it trips over; the picture itself is whole
        return 1


NEXT_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""A JPEG's next marker that a segment or the end comes with; in what is coded, 0xff is followed by 0 or a restart."""


def _check_parts(data: bytes) -> None:
    """Raise ProblemError if the file is cut into so many parts that walking them takes the pod's time and memory.

    What lies after the end of a picture does not count: a camera may put a film there.
    """
    parts = scans = 0
    if data.startswith(b"\xff\xd8"):
        at = 2
        while (marker := NEXT_MARKER.search(data, at)) and parts <= MAX_PARTS and scans <= MAX_SCANS:
            kind, at = marker[0][1], marker.end()
            if kind == 0xD9:
                break
            parts += 1
            scans += kind == 0xDA
            at += max(2, int.from_bytes(data[at : at + 2]))
    elif data.startswith(b"\x89PNG"):
        at = 8
        while at < len(data) and data[at + 4 : at + 8] != b"IEND" and parts <= MAX_PARTS:
            parts += 1
            at += 12 + int.from_bytes(data[at : at + 4])
    if scans > MAX_SCANS:
        raise _unreadable(f"The JPEG has more than {MAX_SCANS} scans. Save it again, without progressive display.")
    if parts > MAX_PARTS:
        raise _unreadable(f"The file has more than {MAX_PARTS:,} parts. Save the picture again, without metadata.")


def _unreadable(detail: str) -> ProblemError:
    return ProblemError(Problem(422, "image-unreadable", detail))


def _too_large(size: tuple[int, int], limit: str) -> ProblemError:
    detail = f"The image is {size[0]} x {size[1]} pixels; {limit}. Send a smaller picture."
    return ProblemError(Problem(413, "image-too-large", detail))


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
    scale = min(1.0, longest / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    small = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=80, comment=b"")  # the photograph's own would go with it
    return out.getvalue()
