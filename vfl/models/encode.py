"""Messages and images (or sounds) to model inputs, with their span marked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from PIL import Image

from vfl.errors import InputError
from vfl.models.medium import IMAGE, Medium

Message = Mapping[str, Any]
ImageLike = Image.Image | str | Path | NDArray[Any]  # an array holds pixels, or a sound's samples
# One value for each frame of a sound, of which there may be as many as tokens.
_OF_FRAMES = "feature_attention_mask"


@dataclass(frozen=True)
class Span:
    """Positions [start, end) of an image in the prompt: from its first to its last image token, markers included."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Encoded:
    """One prompt, ready for the model.

    Attributes:
        inputs: the processor's output on the model's device (`input_ids` and pixel inputs; no positions).
        positions: (..., 1, T) position ids as the decoder takes them.
        spans: one span for images that stand together, several where text or turns stand between them.
        image_sizes: (width, height) of each image as given.
        model_sizes: (width, height) of each image after the processor's resize, where the model's boxes need it.
        image_key: hash of the pixel inputs: tells whether two prompts show the same images.
    """

    inputs: dict[str, Any]
    positions: torch.Tensor
    spans: tuple[Span, ...]
    image_sizes: tuple[tuple[int, int], ...]
    model_sizes: tuple[tuple[int, int], ...]
    image_key: str = field(repr=False)

    @property
    def input_ids(self) -> torch.Tensor:
        """(1, T) token ids."""
        ids: torch.Tensor = self.inputs["input_ids"]
        return ids

    @property
    def length(self) -> int:
        """Number of prompt tokens T."""
        return int(self.input_ids.shape[1])

    @property
    def num_vision_tokens(self) -> int:
        """Tokens in all spans."""
        return sum(len(span) for span in self.spans)

    def head(self, end: int) -> dict[str, Any]:
        """The inputs cut to the first `end` tokens; what is not one value per token stays whole."""
        shape = self.input_ids.shape
        return {
            name: value[:, :end] if _of_tokens(name, value, shape) else value for name, value in self.inputs.items()
        }

    def continued(self, ids: Sequence[int]) -> "Encoded":
        """The prompt with tokens of an answer after it, which the model goes on from."""
        count, shape = len(ids), self.input_ids.shape
        inputs = {
            name: torch.cat([value, value[:, -1:].expand(-1, count)], dim=1)
            if _of_tokens(name, value, shape)
            else value
            for name, value in self.inputs.items()
        }
        inputs["input_ids"] = torch.cat([self.input_ids, self.input_ids.new_tensor([list(ids)])], dim=1)
        following = self.positions[..., -1:] + torch.arange(1, count + 1, device=self.positions.device)
        return replace(self, inputs=inputs, positions=torch.cat([self.positions, following], dim=-1))


def fill_images(
    messages: Sequence[Message], images: Sequence[ImageLike], medium: Medium = IMAGE
) -> tuple[list[dict[str, Any]], list[int]]:
    """Messages with their images opened and in place, and how many images stand in each uninterrupted group.

    `images` fill the `{"type": "image"}` entries without an image of their own, in order. With a medium of audio, all
    this holds for sounds.

    Raises:
        InputError: when the number of images and places differ, or an entry is of another kind.
    """
    queue = list(images)
    filled: list[dict[str, Any]] = []
    groups: list[int] = []
    for message in messages:
        content = message["content"]
        entries = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        adjacent = False  # a new turn ends a group
        placed: list[dict[str, Any]] = []
        for entry in entries:
            if entry["type"] == "text":
                adjacent = False
                placed.append({"type": "text", "text": entry["text"]})
            elif entry["type"] == medium.name:
                source = next((entry[key] for key in (medium.name, "path") if entry.get(key) is not None), None)
                if source is None:
                    if not queue:
                        raise InputError(
                            f"The messages have more {medium.name} places than {medium.name}s: {len(images)} were "
                            f"given. Give one {medium.name} for each {{'type': '{medium.name}'}} entry."
                        )
                    source = queue.pop(0)
                placed.append({"type": medium.name, medium.name: medium.open(source)})
                if adjacent:
                    groups[-1] += 1
                else:
                    groups.append(1)
                adjacent = True
            else:
                raise InputError(
                    f"A message entry has the type {entry['type']!r}; expected 'text' or {medium.name!r}. "
                    "Convert other kinds before encoding."
                )
        filled.append({"role": message["role"], "content": placed})
    if queue:
        raise InputError(
            f"{len(images)} {medium.name}s were given but only {len(images) - len(queue)} places are in the messages. "
            f"Add a {{'type': '{medium.name}'}} entry for each."
        )
    return filled, groups


def find_spans(input_ids: torch.Tensor, image_token_id: int, tokens_per_group: Sequence[int]) -> tuple[Span, ...]:
    """Spans from the first to the last image token of each group of images.

    Args:
        input_ids: (1, T).
        image_token_id: id of the placeholder.
        tokens_per_group: number of image tokens of each group, in order.
    """
    positions = (input_ids[0] == image_token_id).nonzero().flatten().tolist()
    assert len(positions) == sum(tokens_per_group), f"{len(positions)} image tokens, expected {tokens_per_group}"
    spans = []
    taken = 0
    for count in tokens_per_group:
        spans.append(Span(positions[taken], positions[taken + count - 1] + 1))
        taken += count
    return tuple(spans)


def pixel_key(inputs: Mapping[str, Any]) -> str:
    """Hash of everything in the inputs that comes from pixels."""
    digest = sha256()
    shape = inputs["input_ids"].shape
    for name in sorted(inputs):
        value = inputs[name]
        if isinstance(value, torch.Tensor) and not _of_tokens(name, value, shape):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _of_tokens(name: str, value: Any, shape: torch.Size) -> bool:
    """Whether an input holds one value for each token."""
    return isinstance(value, torch.Tensor) and value.shape == shape and name != _OF_FRAMES
