"""Items as left-padded batches of the real processor's output, images decoded and processed once.

Legend: B rows of a batch, T tokens.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from PIL import Image

from vfl.errors import InputError
from vfl.evaluate.items import EvalItem
from vfl.models.encode import Message, fill_images
from vfl.models.vlm import VLM

Size = tuple[int, int]


@dataclass(frozen=True)
class Shown:
    """The sizes (width, height) of an item's images, which its boxes are read with."""

    image_sizes: tuple[Size, ...]
    model_sizes: tuple[Size, ...]


@dataclass(frozen=True)
class ItemBatch:
    """Some items, ready for `generate`.

    Attributes:
        items: B items, all with the same number of images.
        inputs: what the processor made of them, on the CPU; `input_ids` and `attention_mask` (B, T), padded left.
        shown: sizes of each item's images.
        keys: a hash of each item's text, pixels and right answer: tells whether two runs asked the same.
    """

    items: tuple[EvalItem, ...]
    inputs: dict[str, torch.Tensor]
    shown: tuple[Shown, ...]
    keys: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """Memory of the inputs."""
        return sum(value.nbytes for value in self.inputs.values())


def encode_batch(vlm: VLM, items: Sequence[EvalItem], *, pad: bool = True) -> ItemBatch:
    """Open the items' images and run the processor on all of them.

    Raises:
        InputError: names the item whose image can't be read or that the model can't be asked.
    """
    conversations, images = [], []
    for item in items:
        try:
            opened = [open_image() for open_image in item.images]
            filled, _ = fill_images(item.messages, opened, vlm.medium)
        except InputError as error:
            raise InputError(f"Item {item.id!r}: {error}") from error
        if not opened and vlm.family.bare_prompt:
            raise InputError(
                f"Item {item.id!r} has no image, and {vlm.family.name} takes only rows with one. Leave text-only rows "
                "out of its evaluation."
            )
        conversations.append(filled)
        images.append(opened)
    inputs = _process(vlm, conversations, pad=pad)
    sizes = tuple(image.size for opened in images for image in opened if isinstance(image, Image.Image))
    model_sizes = vlm.model_sizes(inputs, sizes)
    shown = []
    for opened in images:
        taken = len(opened) if sizes else 0  # sounds have no size
        shown.append(Shown(sizes[:taken], model_sizes[:taken]))
        sizes, model_sizes = sizes[taken:], model_sizes[taken:]
    keys = tuple(_key(item, opened) for item, opened in zip(items, images, strict=True))
    return ItemBatch(tuple(items), inputs, tuple(shown), keys)


def grouped(items: Sequence[EvalItem], batch: int) -> list[list[EvalItem]]:
    """Items in groups of at most `batch` that share a number of images and a bound, similar lengths together."""

    def alike(item: EvalItem) -> tuple[int, int]:
        return len(item.images), item.max_new_tokens

    def length(item: EvalItem) -> int:
        return len(json.dumps([dict(message) for message in item.messages]))

    ordered = sorted(items, key=lambda item: (*alike(item), item.pair.size if item.pair else (0, 0), length(item)))
    groups: list[list[EvalItem]] = []
    for _, same in groupby(ordered, alike):
        members = list(same)
        groups += [members[start : start + batch] for start in range(0, len(members), batch)]
    return groups


class Batches:
    """Batches of items, encoded at the first pass; as many as fit into `keep_bytes` of memory are kept for the next.

    What does not fit is decoded and encoded again at every pass.
    """

    def __init__(self, vlm: VLM, items: Sequence[EvalItem], batch: int, *, pad: bool, keep_bytes: int) -> None:
        self.vlm, self.pad = vlm, pad
        self.groups = grouped(items, batch if pad else 1)
        self._kept: dict[int, ItemBatch] = {}
        self._free = keep_bytes

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[ItemBatch]:
        for number, group in enumerate(self.groups):
            batch = self._kept.get(number)
            if batch is None:
                batch = encode_batch(self.vlm, group, pad=self.pad)
                if batch.num_bytes <= self._free:
                    self._free -= batch.num_bytes
                    self._kept[number] = batch
            yield batch


def _process(vlm: VLM, conversations: list[list[dict[str, Any]]], *, pad: bool) -> dict[str, torch.Tensor]:
    padding = {"padding": True, "padding_side": "left"} if pad else {}
    template = vlm.chat_template or vlm.processor.chat_template
    if template is not None:
        encoded = vlm.processor.apply_chat_template(
            conversations,
            chat_template=template,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs=padding,
        )
    elif vlm.family.bare_prompt:
        entries = [[entry for turn in turns for entry in turn["content"]] for turns in conversations]
        images = [[entry["image"] for entry in row if entry["type"] == "image"] for row in entries]
        placeholder = vlm.tokenizer.convert_ids_to_tokens(vlm.parts.image_token_id)
        texts = [
            placeholder * len(opened) + " ".join(entry["text"] for entry in row if entry["type"] == "text")
            for row, opened in zip(entries, images, strict=True)
        ]
        encoded = vlm.processor(text=texts, images=images, return_tensors="pt", **padding)
    else:
        raise InputError(
            f"{vlm.model_id} has no chat template, so its prompt format is unknown. "
            "Give one with --chat-template FILE (chat_template= in Python)."
        )
    # PaliGemma's processor also returns labels, which would only cost a loss.
    tensors = {name: value for name, value in encoded.items() if isinstance(value, torch.Tensor) and name != "labels"}
    return {name: value.to(vlm.dtype) if value.is_floating_point() else value for name, value in tensors.items()}


def _key(item: EvalItem, images: Sequence[Any]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    digest.update(json.dumps([_plain(item.messages), item.expected, item.match], sort_keys=True).encode())
    for image in images:
        digest.update(str(image.size).encode())
        digest.update(image.tobytes())
    return digest.hexdigest()


def _plain(messages: Sequence[Message]) -> list[list[Any]]:
    """Roles and texts, whatever form the content had."""
    plain: list[list[Any]] = []
    for message in messages:
        content = message["content"]
        entries = [{"type": "text", "text": content}] if isinstance(content, str) else content
        plain.append([message["role"], [[entry["type"], entry.get("text", "")] for entry in entries]])
    return plain
