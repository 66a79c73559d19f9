"""An image of a row: a file, bytes that the row holds, or an address; opened only when it is needed."""

import io
import struct
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageOps

from vfl.data.cell import Cell
from vfl.data.remote import fetch
from vfl.errors import InputError
from vfl.io.files import as_rgb

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow knows more, and runs Ghostscript for one of them; data may come from anywhere."""


@dataclass(frozen=True)
class Span:
    """Bytes of a file, from `offset` on."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True)
class ImageRef:
    """Exactly one of `path`, `data` and `url` is set; `name` is the image as the row wrote it.

    Where `data` lies in an archive as it is, `span` says so, and may stand in its place; so may `cell`, where it lies
    in a parquet file. Pickles, so that workers can open it.
    """

    path: Path | None
    data: bytes | None = field(repr=False)
    name: str
    url: str | None = None
    span: Span | None = field(default=None, compare=False, repr=False)
    cell: Cell | None = field(default=None, compare=False, repr=False)

    def open(self) -> Image.Image:
        """The image as RGB, turned as its EXIF says; transparency shows white. An address is fetched each time.

        Raises:
            InputError: names the image as the row does; it is absent, broken, or larger than Pillow's limit.
        """
        return as_rgb(self._read(decode=True))

    def content(self) -> bytes:
        """The stored bytes, whatever they hold; an address is fetched each time."""
        source = self._source()
        return source.read_bytes() if isinstance(source, Path) else source.getvalue()

    def check(self, *, decode: bool = True) -> None:
        """Raise what `open` would raise. Without `decode` only the header is read, which misses a cut-off file."""
        self._read(decode=decode)

    def _read(self, *, decode: bool) -> Image.Image:
        try:
            with Image.open(self._source(), formats=FORMATS) as image:
                if decode:
                    image.load()
                    ImageOps.exif_transpose(image, in_place=True)  # as models are shown it
                return image
        except InputError:
            raise
        except FileNotFoundError as error:
            raise InputError(f"image {self.name!r} does not exist ({self.path or error.filename})") from error
        except Image.DecompressionBombError as error:
            raise InputError(f"image {self.name!r} is too large ({error}); shrink it") from error
        # Pillow raises SyntaxError for broken PNG chunks, and what its parsers of headers stumble over
        except (
            OSError,
            ValueError,
            SyntaxError,
            EOFError,
            LookupError,
            TypeError,
            OverflowError,
            struct.error,
        ) as error:
            raise InputError(f"image {self.name!r} cannot be decoded ({_short(error)})") from error

    def _source(self) -> Path | io.BytesIO:
        if self.path is not None:
            return self.path
        if self.data is not None:
            return io.BytesIO(self.data)
        if self.span is not None:
            with self.span.path.open("rb") as handle:
                handle.seek(self.span.offset)
                return io.BytesIO(handle.read(self.span.length))
        if self.cell is not None:
            return io.BytesIO(self.cell.read())
        assert self.url is not None
        return io.BytesIO(fetch(self.url))


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    # Pillow names a BytesIO by its address, which differs from run to run
    return f"none of {', '.join(FORMATS)}" if text.startswith("cannot identify image file") else text
