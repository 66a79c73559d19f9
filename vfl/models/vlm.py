"""A loaded vision-language model with everything the experiments need to know about it."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from vfl.errors import InputError
from vfl.models.discover import Parts, logits_of
from vfl.models.encode import Encoded, ImageLike, Message, fill_images, find_spans, pixel_key
from vfl.models.families import Family
from vfl.models.medium import Medium, medium_of

T = TypeVar("T")


@dataclass
class VLM:
    """Model, processor and the facts that were checked on them (see `vfl.load`).

    Attributes:
        model: the plain Transformers model; nothing on it is patched.
        processor: its processor.
        family: the row of the family table.
        parts: decoder, layers, norm and head.
        model_id: hub id or folder, as the user named it.
        revision: commit on the hub, or None for a folder.
        chat_template: a template that replaces the processor's.
        shares_prefix: vision states do not depend on later text, so they are computed once per image. Checked at
            load; False means that every experiment runs exact full passes.
        first_position: position id of the first token (PaliGemma counts from 1).
        joins_images: images of equal size may be prefilled in one pass. Checked at load.
        row_limit: most rows in a batch; found when memory runs out, None until then.
        layouts: positions and masks of answers after prompts of equal shape, kept by the engine.
    """

    model: PreTrainedModel
    processor: Any
    family: Family
    parts: Parts
    model_id: str
    revision: str | None = None
    chat_template: str | None = None
    shares_prefix: bool = True
    first_position: int = 0
    joins_images: bool = True
    row_limit: int | None = None
    notes: list[str] = field(default_factory=list)
    layouts: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"VLM({self.model_id}, {self.family.name}, {self.num_layers} layers, {self.model.dtype}, {self.device})"

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers."""
        return self.parts.layers

    @property
    def num_layers(self) -> int:
        """Number of decoder layers L; layers are counted from 0."""
        return len(self.parts.layers)

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the model."""
        return self.model.dtype

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def medium(self) -> Medium:
        """What the span holds: images, or sounds for an audio language model."""
        return medium_of(self.family.modality, self.processor)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., d) output of the last decoder layer -> (..., vocabulary) logits."""
        return logits_of(self.parts, hidden)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """(B, n) token ids -> (B, n, d) embeddings."""
        embedded: torch.Tensor = self.model.get_input_embeddings()(ids)
        return embedded

    def ask(self, question: str, image: ImageLike) -> Encoded:
        """Encode one question on one image (or sound), the image first."""
        kind = self.medium.name
        content = [{"type": kind, kind: image}, {"type": "text", "text": question}]
        return self.encode([{"role": "user", "content": content}])

    def once(
        self, wanted: Sequence[tuple[Encoded, Hashable | None]], make: Callable[[list[int]], Sequence[T]]
    ) -> list[T]:
        """What `make` gives for prompts; a model that keeps its prompts may keep that too, and hand it out again.

        Args:
            wanted: prompts, each with what is made of it: equal where it is the same, None where it is not to be kept.
            make: given the places of those that are not there yet, gives a value for each; the plain model keeps none.

        Returns:
            A value for each; not to be changed.
        """
        return list(make(list(range(len(wanted)))))

    def encode(self, messages: Sequence[Message], images: Sequence[ImageLike] = ()) -> Encoded:
        """Encode a conversation; the generation prompt is added when the last turn is the user's.

        Args:
            messages: turns with a role and a content: text, or entries `{"type": "text", "text": ...}` and
                `{"type": "image"}`, the latter with their own "image" (PIL or path) or filled from `images`. An audio
                language model takes `{"type": "audio"}` with an "audio": a WAV file, or samples at its own rate.
            images: images (or sounds) for the entries without one.

        Raises:
            InputError: for unreadable images, mismatched counts, or no image at all.
        """
        medium = self.medium
        filled, groups = fill_images(messages, images, medium)
        if not groups:
            raise InputError(
                f"The messages hold no {medium.name}. Every experiment here is about what the text reads in one."
            )
        processed = self._process(filled)
        counts = [self._num_image_tokens(processed)]
        if len(groups) > 1:
            counts = self._tokens_per_group(filled, groups)
        originals = [entry["image"] for turn in filled for entry in turn["content"] if entry["type"] == "image"]
        sizes = tuple(image.size for image in originals)  # a sound has none
        inputs = self._on_device(processed)
        return Encoded(
            inputs=inputs,
            positions=self.positions_of(inputs),
            spans=find_spans(processed["input_ids"], self.parts.image_token_id, counts),
            image_sizes=sizes,
            model_sizes=self.model_sizes(processed, sizes),
            image_key=pixel_key(processed),  # here, so that a GPU need not hand the pixels back
        )

    def answer_ids(self, answer: str) -> list[int]:
        """Token ids of an answer that follows the generation prompt.

        Raises:
            InputError: for an answer without tokens.
        """
        ids: list[int] = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        if not ids:
            raise InputError(f"The answer {answer!r} has no tokens. Give a non-empty answer.")
        return ids

    def end_ids(self) -> set[int]:
        """Ids that end a generated answer."""
        ends = self.model.generation_config.eos_token_id if self.model.generation_config else None
        ids = set(ends) if isinstance(ends, list) else {ends}
        return {int(i) for i in ids | {self.tokenizer.eos_token_id} if i is not None}

    def _process(self, filled: list[dict[str, Any]]) -> dict[str, Any]:
        try:
            return self._processed(filled)
        except (InputError, torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # of templates and processors of any origin
            lines = str(error).strip().splitlines()
            raise InputError(
                f"The processor of {self.model_id} ({type(self.processor).__name__}) refused the prompt with "
                f"{type(error).__name__}: {lines[0] if lines else 'no message'}. Its chat template must take messages "
                f"whose content is a list with the {self.medium.name} (give another with --chat-template FILE), and "
                f"the {self.medium.name} must have a size that it supports."
            ) from error

    def _processed(self, filled: list[dict[str, Any]]) -> dict[str, Any]:
        template = self.chat_template or self.processor.chat_template
        if template is not None:
            batch = self.processor.apply_chat_template(
                filled,
                chat_template=template,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                add_generation_prompt=filled[-1]["role"] == "user",
            )
        elif self.family.bare_prompt:
            entries = [entry for turn in filled for entry in turn["content"]]
            images = [entry["image"] for entry in entries if entry["type"] == "image"]
            text = " ".join(entry["text"] for entry in entries if entry["type"] == "text")
            placeholder = self.tokenizer.convert_ids_to_tokens(self.parts.image_token_id)
            batch = self.processor(text=[placeholder * len(images) + text], images=[images], return_tensors="pt")
        else:
            raise InputError(
                f"{self.model_id} has no chat template, so its prompt format is unknown. "
                "Give one with --chat-template FILE (chat_template= in Python)."
            )
        # PaliGemma's processor returns labels, which would only cost a loss.
        return {name: value for name, value in batch.items() if name != "labels"}

    def _on_device(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Inputs where the model is, in its floating-point type."""
        moved = {}
        for name, value in inputs.items():
            if isinstance(value, torch.Tensor):
                value = value.to(self.device)
                if value.is_floating_point():
                    value = value.to(self.dtype)
            moved[name] = value
        return moved

    def _num_image_tokens(self, inputs: dict[str, Any]) -> int:
        count = int((inputs["input_ids"] == self.parts.image_token_id).sum())
        if count == 0:
            raise InputError(
                f"The prompt of {self.model_id} holds no {self.medium.name} token (id {self.parts.image_token_id}): "
                f"its chat template does not place {self.medium.name}s. Give a template that does with --chat-template "
                "FILE."
            )
        return count

    def _tokens_per_group(self, filled: list[dict[str, Any]], groups: list[int]) -> list[int]:
        """Image tokens of each group: the processor decides how many an image gets, so each group is asked alone."""
        images = [entry for turn in filled for entry in turn["content"] if entry["type"] == self.medium.name]
        counts = []
        for size in groups:
            taken, images = images[:size], images[size:]
            alone = self._process([{"role": "user", "content": [*taken, {"type": "text", "text": "?"}]}])
            counts.append(self._num_image_tokens(alone))
        return counts

    def positions_of(self, inputs: dict[str, Any]) -> torch.Tensor:
        """(..., B or 1, T) position ids of the processor's output, as the model itself counts them."""
        length = inputs["input_ids"].shape[1]
        body: Any = self.parts.body
        if not hasattr(body, "get_rope_index"):
            return torch.arange(length, device=self.device)[None] + self.first_position
        # M-RoPE: the model would compute these itself, but would also keep them as state that a second image changes.
        names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
        inputs_of_rope = {name: inputs[name] for name in names if name in inputs}
        positions: torch.Tensor = body.get_rope_index(**inputs_of_rope)[0]
        return positions

    def model_sizes(self, inputs: dict[str, Any], sizes: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        """(width, height) of each image as the model sees it, where its boxes need that; else as given."""
        grid = inputs.get("image_grid_thw")
        if grid is None:
            return sizes
        patch = self.processor.image_processor.patch_size
        return tuple((int(w) * patch, int(h) * patch) for _, h, w in grid.tolist())
