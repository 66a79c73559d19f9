"""Pictures and questions to ask a tiny model."""

from typing import Any

import numpy as np
from PIL import Image

SIZE = (64, 48)  # width, height: not square, so that a mix-up of the two shows


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    """Coarse random blocks of colour: pictures of two seeds differ in every patch."""
    width, height = size
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return Image.fromarray(blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width])


def messages(
    image: Image.Image | None, question: str = "How many cubes are there in the image? Answer with a number."
) -> list[dict[str, Any]]:
    """One user turn, in the form that apply_chat_template takes; without an image it is text only."""
    parts: list[dict[str, Any]] = [] if image is None else [{"type": "image", "image": image}]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]
