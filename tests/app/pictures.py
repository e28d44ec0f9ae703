"""Pictures made for the tests, the harmful one too."""

import io
import struct
import zlib

from PIL import Image


def png(width: int, height: int, *, colour: tuple[int, int, int] = (200, 100, 50), kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(out, kind)
    return out.getvalue()


def bomb(side: int = 9000) -> bytes:
    """A one-bit PNG of 81 million pixels in about 10 kB."""
    rows = zlib.compress(bytes(((side + 7) // 8 + 1) * side), 9)
    return _png_begun(side, side) + chunk(b"IDAT", rows) + chunk(b"IEND")


def png_header(width: int, height: int) -> bytes:
    """A PNG that ends where its pixels should begin."""
    return _png_begun(width, height) + chunk(b"IDAT")


def _png_begun(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def webp_header(width: int, height: int) -> bytes:
    """A WebP that ends where its pixels should begin."""
    size = struct.pack("<I", (width - 1) | (height - 1) << 14)
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8L" + struct.pack("<I", 10) + b"\x2f" + size + bytes(5)


def jpeg_of_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again, without a word in it."""
    out = io.BytesIO()
    Image.new("L", (16, 16)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (count - data.count(b"\xff\xda")) + data[-2:]


def with_exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """A JPEG of 40 x 20 pixels with these EXIF tags: number, type, count, four bytes of value."""
    tags = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHI4s", *entry) for entry in entries) + bytes(4)
    out = io.BytesIO()
    Image.new("RGB", (40, 20)).save(out, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + tags)
    return out.getvalue()
