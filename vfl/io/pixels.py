"""Pixels of other depths than a screen's: 16 and 32 bits, floating point, and arrays, as 8 bits a channel.

Pillow clips what does not fit into a byte, so an X-ray, a depth map or a micrograph would turn all white or all black.
"""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vfl.errors import InputError

logger = logging.getLogger(__name__)

_WIDE = ("I", "F")  # Pillow's modes of one wide channel: I, I;16, I;16B, I;16L, I;16N, F
_BYTE = 255


def is_wide(image: Image.Image) -> bool:
    """Whether the image's channel holds more than bytes."""
    return image.mode.startswith(_WIDE)


def as_bytes(image: Image.Image) -> Image.Image:
    """An image of a wide channel as "L", its own range stretched over 0..255 with a warning.

    Integers that all fit into 0..255 are taken as they are.

    Raises:
        InputError: for values that are not finite.
    """
    return Image.fromarray(_scaled(np.asarray(image), f"mode {image.mode}"))


def image_of(pixels: NDArray[Any]) -> Image.Image:
    """An array as an image: (H, W), (H, W, 3) or (H, W, 4) of bytes, or (H, W) of other numbers, scaled as above.

    Raises:
        InputError: for other shapes and types; the message says what to give.
    """
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.ndim not in (2, 3) or channels not in (1, 3, 4) or not pixels.size:
        raise _refused(pixels, "expected (height, width), (height, width, 3) or (height, width, 4)")
    if pixels.ndim == 3 and channels == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(pixels))
    if pixels.ndim == 3:
        # One range for three channels is a choice of brightness and colour that only the user can make.
        raise _refused(pixels, "colours are expected as bytes 0..255; convert them with .astype('uint8')")
    if pixels.dtype.kind not in "buif":
        raise _refused(pixels, "expected numbers")
    return Image.fromarray(_scaled(pixels, f"array of {pixels.dtype}"))


def _scaled(values: NDArray[Any], what: str) -> NDArray[np.uint8]:
    if values.dtype == bool:
        return values.astype(np.uint8) * _BYTE
    if not np.isfinite(values).all():
        raise InputError(
            f"The image ({what}) has pixels that are not finite numbers (NaN or infinity). "
            "Fill them and save it as an 8-bit PNG."
        )
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind in "ui" and low >= 0 and high <= _BYTE:
        return values.astype(np.uint8)
    logger.warning(
        "an image of %s holds values from %g to %g: scaled by this range to 0..255; save images as 8-bit PNG to choose "
        "the range yourself (the same for images that are compared)",
        what,
        low,
        high,
    )
    spread = (values.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny)
    return np.rint(spread * _BYTE).astype(np.uint8)


def _refused(pixels: NDArray[Any], expected: str) -> InputError:
    return InputError(f"An image was given as an array of {pixels.dtype} and shape {pixels.shape}; {expected}.")
