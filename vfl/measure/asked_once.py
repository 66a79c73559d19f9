"""A model that encodes a question on an image file once, and keeps what metrics have in common, made once for all."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from vfl.models.encode import Encoded, ImageLike
from vfl.models.vlm import VLM

KEPT_BYTES = 1 << 28  # of encoded prompts, and as many of what was made of them, most of it on the model's device

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class AskedOnce(VLM):
    """The same model; prompts on files are kept, the last used ones, while the files and the weights do not change."""

    def __init__(self, vlm: VLM, kept_bytes: int = KEPT_BYTES) -> None:
        super().__init__(**{field.name: getattr(vlm, field.name) for field in fields(vlm)})
        self._prompts: _LastUsed[tuple[str, Path]] = _LastUsed(kept_bytes)
        # By the id of a prompt, which is held beside what was made of it: no other one can take its id.
        self._made: _LastUsed[tuple[int, Hashable]] = _LastUsed(kept_bytes)
        self._kept: set[int] = set()

    def ask(self, question: str, image: ImageLike) -> Encoded:
        """As of the model."""
        if not isinstance(image, Path):
            return super().ask(question, image)
        key = question, image
        prompt: Encoded | None = self._prompts.get(key)
        if prompt is None:
            prompt = super().ask(question, image)
            gone = self._prompts.put(key, prompt, num_bytes(prompt.inputs))
            self._kept.add(id(prompt))
            self._kept.difference_update(map(id, gone))
        return prompt

    def once(
        self, wanted: Sequence[tuple[Encoded, Hashable | None]], make: Callable[[list[int]], Sequence[T]]
    ) -> list[T]:
        """As of the model: what is made of a kept prompt is kept, and handed out again."""
        keys = [None if what is None or id(prompt) not in self._kept else (id(prompt), what) for prompt, what in wanted]
        known = {key: kept[1] for key in dict.fromkeys(keys) if key and (kept := self._made.get(key))}
        first = {key: at for at, key in reversed(list(enumerate(keys)))}
        places = [at for at, key in enumerate(keys) if key is None or (key not in known and first[key] == at)]
        made = dict(zip(places, make(places) if places else [], strict=True))
        for at, value in made.items():
            key = keys[at]
            if key is not None:
                known[key] = value
                self._made.put(key, (wanted[at][0], value), num_bytes(value))
        return [known[key] if key is not None else made[at] for at, key in enumerate(keys)]


class _LastUsed(Generic[K]):
    """Values by key, those that were used last, up to so many bytes and at least one."""

    def __init__(self, most: int) -> None:
        self._values: OrderedDict[K, tuple[Any, int]] = OrderedDict()
        self._free = most

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> Any:
        """The value, None where there is none."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: K, value: Any, size: int) -> list[Any]:
        """Keep a value; returns those that had to go."""
        self._values[key] = value, size
        self._free -= size
        gone = []
        while self._free < 0 and len(self._values) > 1:
            _, (oldest, freed) = self._values.popitem(last=False)
            self._free += freed
            gone.append(oldest)
        return gone


def num_bytes(value: Any) -> int:
    """Of all tensors in a value."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if is_dataclass(value):
        value = [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, Mapping):
        value = list(value.values())
    return sum(map(num_bytes, value)) if isinstance(value, list | tuple) else 0
