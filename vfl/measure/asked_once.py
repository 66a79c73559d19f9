"""A model that encodes a question on an image file once, however many metrics ask it."""

from collections import OrderedDict
from dataclasses import fields
from pathlib import Path

import torch

from vfl.models.encode import Encoded, ImageLike
from vfl.models.vlm import VLM

KEPT_BYTES = 1 << 28  # of encoded prompts, on the model's device


class AskedOnce(VLM):
    """The same model; prompts on files are kept, the last used ones, while the files are not to change."""

    def __init__(self, vlm: VLM, kept_bytes: int = KEPT_BYTES) -> None:
        super().__init__(**{field.name: getattr(vlm, field.name) for field in fields(vlm)})
        self._kept: OrderedDict[tuple[str, Path], Encoded] = OrderedDict()
        self._free = kept_bytes

    def ask(self, question: str, image: ImageLike) -> Encoded:
        """As of the model."""
        if not isinstance(image, Path):
            return super().ask(question, image)
        key = question, image
        if key not in self._kept:
            self._kept[key] = super().ask(question, image)
            self._free -= _num_bytes(self._kept[key])
            while self._free < 0 and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._free += _num_bytes(oldest)
        self._kept.move_to_end(key)
        return self._kept[key]


def _num_bytes(encoded: Encoded) -> int:
    return sum(value.nbytes for value in encoded.inputs.values() if isinstance(value, torch.Tensor))
