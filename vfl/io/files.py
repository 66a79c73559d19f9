"""Image files that a user names: reading them, and keeping their names inside the folder they were given for."""

from pathlib import Path

from PIL import Image, ImageOps

from vfl.errors import InputError
from vfl.io.pixels import as_bytes, is_wide


def open_image(path: Path) -> Image.Image:
    """An image file, decoded to its last pixel and turned as its EXIF says, in its own Pillow mode.

    Raises:
        InputError: the file is absent, or no image that can be decoded.
    """
    try:
        with Image.open(path) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)  # as models are shown it
            return image
    except FileNotFoundError as error:
        raise InputError(f"image {path} does not exist") from error
    # Pillow raises SyntaxError for broken PNG chunks and DecompressionBombError for absurd sizes
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"image {path} cannot be read ({error}); expected an intact PNG, JPEG or WebP file") from error


def open_rgb(path: Path) -> Image.Image:
    """An image file as RGB; transparency shows white. Raises as `open_image`."""
    return as_rgb(open_image(path))


def as_rgb(image: Image.Image) -> Image.Image:
    """Any image as RGB; transparency shows white, and more than 8 bits a channel are scaled by their range."""
    if is_wide(image):
        return as_bytes(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def inside(root: Path, name: str, which: str) -> Path:
    """The file `name` in `root` (a resolved folder), refused where it would leave it, through a link as well.

    Raises:
        InputError: names `which` (what the name stands for), the name and the folder.
    """
    if "\0" in name:
        raise InputError(f"{which} {name!r} is no file name")
    path = (root / name).resolve()
    if Path(name).is_absolute() or not path.is_relative_to(root):
        raise InputError(f"{which} {name!r} leaves the folder; expected a relative path inside {root}")
    if not path.is_file():
        raise InputError(f"{which} {name!r} does not exist in {root}")
    return path
