"""Where the rows of a sweep start: the past that they share, and the trace of the plain model that they leave."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from vfl.engine.image_cache import ImageCache, can_share, prefill, slots_of
from vfl.engine.layer_trace import LayerTrace, trace_after, trace_prompt
from vfl.engine.rows import Context, KeysValues, Tokens, tokens_of
from vfl.errors import InputError
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

Reading = Literal["text", "answer", "all"]
READINGS: tuple[Reading, ...] = ("text", "answer", "all")
_LAYOUTS = 16  # kept for prompts of equal shape


@dataclass(frozen=True, eq=False)
class RowStart:
    """A prompt made ready for rows; several sweeps may start from it.

    Attributes:
        encoded: the prompt.
        reading: who sees a plan (see `sweep`).
        trace: the plain model over the tokens that rows run.
        context: what comes before them.
        shared_prefix: False where rows are exact full passes.
    """

    encoded: Encoded
    reading: Reading
    trace: LayerTrace
    context: Context
    shared_prefix: bool

    def past(self) -> list[KeysValues]:
        """Per layer keys and values (1, H, T, D) of the whole prompt in the plain model."""
        return _extended(self.context.shared, self.trace)

    def answer_tokens(self, vlm: VLM, length: int) -> Tokens:
        """Positions and masks of so many tokens after the prompt, whatever they are.

        They are the same after each prompt of equal shape, so the decoder runs over placeholders once for all of these.
        """
        encoded = self.encoded
        after = encoded.positions[..., -1].flatten().tolist()
        key = (length, encoded.length, encoded.spans, tuple(after), vlm.device, vlm.dtype)
        if key not in vlm.layouts:
            if len(vlm.layouts) >= _LAYOUTS:
                vlm.layouts.clear()
            positions = encoded.positions[..., -1:] + torch.arange(1, length + 1, device=vlm.device)
            ids = encoded.input_ids[:, -1:].expand(1, length)
            vlm.layouts[key] = tokens_of(trace_after(vlm, self.past(), ids, positions, encoded.length))
        tokens: Tokens = vlm.layouts[key]
        return tokens


@torch.no_grad()
def row_start(vlm: VLM, encoded: Encoded, reading: Reading = "text", own: ImageCache | None = None) -> RowStart:
    """Run the plain model up to where rows may differ from it.

    Args:
        vlm: the model.
        encoded: the prompt.
        reading: who will see the plans.
        own: the prompt's own image cache from `prefill`.

    Raises:
        InputError: for an unknown reading, or an image cache of another prompt.
    """
    if reading not in READINGS:
        raise InputError(f"reading={reading!r} is unknown; expected one of {', '.join(READINGS)}.")
    if not can_share(vlm, encoded) or reading == "all":
        return _full(vlm, encoded, reading)
    if own is None:
        own = prefill(vlm, encoded)
    elif own.image_key != encoded.image_key or not torch.equal(own.ids, encoded.input_ids[:, : own.length]):
        raise InputError(
            "The given image cache is not this prompt's own: its image or the tokens up to it differ. "
            "Prefill it from a prompt with the same image and the same beginning."
        )
    past = list(zip(own.keys, own.values, strict=True))
    start = own.length
    if reading == "answer" and encoded.length - start > 1:
        trace = _trace(vlm, encoded, past, start, encoded.length - 1)
        past, start = _extended(past, trace), encoded.length - 1
    trace = _trace(vlm, encoded, past, start, encoded.length)
    return RowStart(encoded, reading, trace, Context(past, encoded.spans), shared_prefix=True)


def _full(vlm: VLM, encoded: Encoded, reading: Reading) -> RowStart:
    """Rows that run the whole prompt."""
    trace = trace_prompt(vlm, encoded)
    empty = [(keys[:, :, :0], values[:, :, :0]) for keys, values in zip(trace.keys, trace.values, strict=True)]
    readers = None
    if reading != "all":
        readers = torch.ones(encoded.length, dtype=torch.bool, device=vlm.device)
        readers[: encoded.length - 1 if reading == "answer" else 0] = False
        readers[slots_of(encoded.spans, vlm.device)] = False
    return RowStart(encoded, reading, trace, Context(empty, encoded.spans, readers), shared_prefix=False)


def _trace(vlm: VLM, encoded: Encoded, past: list[KeysValues], start: int, end: int) -> LayerTrace:
    return trace_after(vlm, past, encoded.input_ids[:, start:end], encoded.positions[..., start:end], start)


def _extended(past: Sequence[KeysValues], trace: LayerTrace) -> list[KeysValues]:
    return [
        (torch.cat([keys, trace.keys[i]], dim=2), torch.cat([values, trace.values[i]], dim=2))
        for i, (keys, values) in enumerate(past)
    ]
