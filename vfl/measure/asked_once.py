"""A model that encodes a question on an image file once, and shows its vision tower the image once, for all metrics."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch

from vfl.models.encode import Encoded, ImageLike
from vfl.models.vlm import VLM

KEPT_BYTES = 1 << 28  # of encoded prompts and what was made of them, on the model's device

T = TypeVar("T")


class AskedOnce(VLM):
    """The same model; prompts on files are kept, the last used ones, while the files and the weights do not change."""

    def __init__(self, vlm: VLM, kept_bytes: int = KEPT_BYTES) -> None:
        super().__init__(**{field.name: getattr(vlm, field.name) for field in fields(vlm)})
        self._kept: OrderedDict[tuple[str, Path], Encoded] = OrderedDict()
        self._made: dict[int, Any] = {}  # by the id of a kept prompt; None where nothing was made of it yet
        self._free = kept_bytes

    def ask(self, question: str, image: ImageLike) -> Encoded:
        """As of the model."""
        if not isinstance(image, Path):
            return super().ask(question, image)
        key = question, image
        if key not in self._kept:
            self._kept[key] = super().ask(question, image)
            self._made[id(self._kept[key])] = None
            self._take(self._kept[key].inputs)
        self._kept.move_to_end(key)
        return self._kept[key]

    def once(self, encoded: Encoded, make: Callable[[], T]) -> T:
        """As of the model: what is made of a kept prompt is kept as long as the prompt."""
        if id(encoded) not in self._made:
            return make()
        made: T | None = self._made[id(encoded)]
        if made is None:
            made = self._made[id(encoded)] = make()
            self._take(made)
        return made

    def _take(self, value: Any) -> None:
        self._free -= _num_bytes(value)
        while self._free < 0 and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._free += _num_bytes(oldest.inputs) + _num_bytes(self._made.pop(id(oldest)))


def _num_bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        value = list(value.values())
    return sum(map(_num_bytes, value)) if isinstance(value, list | tuple) else 0
