"""What a model's span holds, images or sounds: how prompts call it, and how one is opened."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from vfl.errors import InputError
from vfl.io.audio import read_sound
from vfl.io.files import as_rgb, open_rgb
from vfl.io.pixels import image_of

Modality = Literal["image", "audio"]
SIDE = 112  # pixels of a made image
LENGTH = 0.64  # seconds of a made sound


@dataclass(frozen=True)
class Medium:
    """A modality.

    Attributes:
        name: the type of an entry of a message.
        open: from a file, or what stands for one in memory, to what the processor takes.
        noise: makes one from a seed (0 if none is given): always the same size, other content for another seed.
    """

    name: Modality
    open: Callable[[Any], Any]
    noise: Callable[..., Any]


def medium_of(modality: Modality, processor: Any) -> Medium:
    """The medium of a model with this processor."""
    if modality == "audio":
        rate = int(processor.feature_extractor.sampling_rate)
        return Medium("audio", partial(read_sound, rate=rate), partial(_sound, rate))
    return IMAGE


def read_image(image: Any) -> Image.Image:
    """A picture as the model is shown it: RGB, upright, transparency on white; from a file, Pillow or an array.

    Raises:
        InputError: for a missing, truncated or unreadable file, by name, or what is no picture.
    """
    if isinstance(image, np.ndarray):
        return as_rgb(image_of(image))
    if isinstance(image, (str, Path)):
        return open_rgb(Path(image))
    if not isinstance(image, Image.Image):
        raise InputError(
            f"An image was given as {type(image).__name__}; expected a path, a Pillow image, or an array (height, "
            "width, 3) of bytes."
        )
    return as_rgb(image)


def _picture(seed: int = 0) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


IMAGE = Medium("image", read_image, _picture)


def _sound(rate: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(LENGTH * rate)).astype(np.float32)
