"""The same experiments as the engine's, the slow way: one full forward a row, edited inside the attention function.

Shares nothing with the engine but the model: keys and values of the source come from a full forward of the source, and
who sees what is decided query by query.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch.utils._pytree import tree_flatten
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

KeysValues = tuple[torch.Tensor, torch.Tensor]
NAME = "vfl_test_full_passes"


class Tap:
    """Records keys and values of all layers, and applies edits: layer -> (keys, values) of the slots, None hides."""

    def __init__(self) -> None:
        self.recorded: dict[int, KeysValues] = {}
        self.edits: dict[int, KeysValues | None] = {}
        self.slots = torch.empty(0, dtype=torch.long)
        self.readers = torch.empty(0, dtype=torch.bool)

    def __call__(self, module, query, key, value, attention_mask, scaling=None, **kwargs):
        layer_idx = module.layer_idx
        self.recorded[layer_idx] = (key, value)
        groups = query.shape[1] // key.shape[1]
        length = query.shape[2]
        if attention_mask is None:
            attention_mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
        plain = _attend(query, key, value, attention_mask, scaling, groups)
        if layer_idx in self.edits:
            edit = self.edits[layer_idx]
            mask = attention_mask.clone()
            if edit is None:
                mask[..., self.slots] = False
                mask = mask | torch.eye(length, dtype=torch.bool)  # rows of vision tokens are not used, but not NaN
            else:
                key, value = key.clone(), value.clone()
                key[:, :, self.slots], value[:, :, self.slots] = edit
            edited = _attend(query, key, value, mask, scaling, groups)
            plain = torch.where(self.readers[None, None, :, None], edited, plain)
        return plain.transpose(1, 2).contiguous(), None


def _attend(query, key, value, mask, scaling, groups):
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = (query @ key.transpose(2, 3)) * scaling
    return scores.masked_fill(~mask, float("-inf")).softmax(-1) @ value


@contextmanager
def tapped(vlm: VLM) -> Iterator[Tap]:
    """The decoder of the model with its attention replaced by a Tap."""
    tap = Tap()
    AttentionInterface.register(NAME, tap)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    config = vlm.parts.decoder.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield tap
    finally:
        config._attn_implementation = before


class Towers:
    """What a model's own tower made of each picture (or sound), so that many passes over the same run it once."""

    def __init__(self, vlm: VLM) -> None:
        self.tower = vlm.model.get_encoder(modality=vlm.family.modality)
        assert self.tower not in (vlm.model, vlm.parts.body, vlm.parts.decoder), "no tower was found"
        self.seen: list[tuple[Any, Any]] = []

    @contextmanager
    def once(self) -> Iterator[None]:
        """Inside, the tower is not run for what it was already given."""
        run = self.tower.forward

        def forward(*arguments: Any, **options: Any) -> Any:
            inputs = tree_flatten((arguments, options))
            for before, output in self.seen:
                if _same(before, inputs):
                    return copy(output)
            output = run(*arguments, **options)
            self.seen.append((inputs, copy(output)))  # Qwen's model puts other fields into what it is given
            return output

        self.tower.forward = forward
        try:
            yield
        finally:
            del self.tower.forward


def _same(first: tuple[list[Any], Any], second: tuple[list[Any], Any]) -> bool:
    return first[1] == second[1] and all(
        a.dtype == b.dtype and torch.equal(a, b) if isinstance(a, torch.Tensor) else a is b or a == b
        for a, b in zip(first[0], second[0], strict=True)
    )


class FullPasses:
    """Rows by full forwards of one target, with edits from one source."""

    def __init__(self, vlm: VLM, target: Encoded, source: Encoded, reading: str) -> None:
        self.vlm, self.target, self.reading = vlm, target, reading
        self.known: dict[tuple[tuple[int, ...], ...], torch.Tensor] = {}
        self.slots = torch.cat([torch.arange(span.start, span.end) for span in target.spans])
        self.towers = Towers(vlm)
        with tapped(vlm) as tap, torch.no_grad():
            vlm.model(**source.inputs, position_ids=source.positions, use_cache=False)
            self.source = {
                layer: (key[:, :, self.slots], value[:, :, self.slots]) for layer, (key, value) in tap.recorded.items()
            }

    def logits(self, swapped: list[int], hidden: list[int], answer: Sequence[int] = ()) -> torch.Tensor:
        """(T + answer, vocabulary) logits of the prompt followed by answer tokens, from one pass however often."""
        key = tuple(swapped), tuple(hidden), tuple(answer)
        if key not in self.known:
            self.known[key] = self._logits(swapped, hidden, answer)
        return self.known[key]

    def _logits(self, swapped: list[int], hidden: list[int], answer: Sequence[int]) -> torch.Tensor:
        inputs, extra = dict(self.target.inputs), len(answer)
        prompt_length = self.target.length
        for name, value in inputs.items():
            if isinstance(value, torch.Tensor) and value.shape == self.target.input_ids.shape:
                fill = torch.zeros(1, extra, dtype=value.dtype)
                if name == "input_ids":
                    fill = torch.tensor([list(answer)], dtype=value.dtype)
                elif name == "attention_mask" or (name == "token_type_ids" and self.vlm.family.prefix_lm):
                    fill = torch.ones(1, extra, dtype=value.dtype)
                inputs[name] = torch.cat([value, fill], 1)
        steps = torch.arange(1, extra + 1)
        positions = torch.cat([self.target.positions, self.target.positions[..., -1:] + steps], -1)
        readers = torch.ones(prompt_length + extra, dtype=torch.bool)
        if self.reading != "all":
            readers[self.slots] = False
        if self.reading == "answer":
            readers[: prompt_length - 1] = False
        with tapped(self.vlm) as tap, self.towers.once(), torch.no_grad():
            tap.slots, tap.readers = self.slots, readers
            tap.edits = {layer: self.source[layer] for layer in swapped} | dict.fromkeys(hidden)
            return self.vlm.model(**inputs, position_ids=positions, use_cache=False).logits[0]

    def logprob(self, swapped: list[int], hidden: list[int], answer: list[int]) -> torch.Tensor:
        """Mean log-probability per token of an answer."""
        logits = self.logits(swapped, hidden, answer[:-1])[self.target.length - 1 :]
        return torch.log_softmax(logits, -1)[torch.arange(len(answer)), torch.tensor(answer)].mean()

    def is_greedy(self, swapped: list[int], hidden: list[int], ids: list[int], num_tokens: int) -> bool:
        """Whether `ids` are the greedy tokens: each the likeliest after all before it, and an end after the last."""
        likeliest = self.logits(swapped, hidden, ids)[self.target.length - 1 :].argmax(-1).tolist()
        ends = set(self.vlm.end_ids())
        ended = len(ids) == num_tokens or (len(ids) < num_tokens and likeliest[-1] in ends)
        return ended and likeliest[:-1] == ids and not ends.intersection(ids)
