"""Hashes that tell equal and alike rows apart from others: of a row's text, and of its images."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from scipy.fft import dctn

from vfl.data import Message

_SIDE, _KEPT = 32, 8
_SPACE = re.compile(r"\s+")


def text_hash(messages: Sequence[Message]) -> str:
    """32 hex digits of who says what; letter case, width and spaces don't count, nor do image places."""
    digest = hashlib.blake2b(digest_size=16)
    for message in messages:
        told = " ".join(part["text"] for part in message["content"] if part["type"] == "text")
        plain = _SPACE.sub(" ", unicodedata.normalize("NFKC", told).casefold()).strip()
        digest.update(f"{message['role']}\0{plain}\1".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def image_hash(images: Iterable[Image.Image]) -> str:
    """The exact hash of each image, with commas between images; "" without any."""
    return ",".join(map(exact, images))


def exact(image: Image.Image) -> str:
    """16 hex digits of an RGB image's size and pixels: the same for the same image in another file format."""
    digest = hashlib.blake2b(f"{image.size}".encode(), digest_size=8)
    digest.update(image.tobytes())
    return digest.hexdigest()


def perceptual(image: Image.Image) -> int:
    """64 bits, of which few differ between an image and the same one resized or compressed.

    The signs, about their median, of the 8 x 8 lowest frequencies of the brightness at 32 x 32 (Zauner 2010, "pHash").
    """
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=2.0).convert("L")
    # Rounded: frequencies that are not there come out as 1e-14 of either sign.
    low = dctn(np.asarray(small, dtype=np.float64), norm="ortho")[:_KEPT, :_KEPT].round(6).ravel()
    bits = np.packbits(low > np.median(low))
    return int.from_bytes(bits.tobytes(), "big")
