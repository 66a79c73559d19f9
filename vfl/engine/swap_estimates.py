"""What a swap of each single layer would do to an answer, estimated for all layers from one gradient.

    drop_k = -sum_{t,i} (f_k(h_k; other) - f_k(h_k; own))_{t,i} * d log-odds / d h_{k+1,t,i}

f_k is decoder layer k over the text after the image, whose hidden states h_k are those of the unswapped run; the other
image's vision keys and values stand in f_k, so softmax, values and MLP of the layer are exact and only what is above it
is taken as linear. This is attribution patching (Nanda 2023) with the attention computed anew, as in AtP* (Kramar et
al. 2024, arXiv 2403.00745), at the output of a layer.

Shapes: R rows, one for both answers where they differ in their last token alone, else one each; n tokens of the text
after the image, m of the longer answer but its last; H key-value heads, S tokens before the text, D head dimension, d
model width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vfl.engine.image_cache import ImageCache, can_share
from vfl.engine.layer_trace import LayerTrace, trace_after
from vfl.engine.rows import KeysValues, model_mask, run_layer, tokens_of
from vfl.errors import InputError
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM


@dataclass(frozen=True)
class SwapEstimates:
    """Estimated effects of single-layer swaps on log p(answer) - log p(other answer), in nats.

    Attributes:
        log_odds: of the unswapped run; each answer's log-probability is the mean over its tokens.
        drops: (L,) how much a swap of each layer alone would take from it.
    """

    log_odds: float
    drops: torch.Tensor


@torch.no_grad()
def swap_estimates(
    vlm: VLM, encoded: Encoded, own: ImageCache, other: ImageCache, answers: tuple[str, str]
) -> SwapEstimates:
    """Estimate what each layer's swap does, at the price of some four passes over the text, whatever the depth.

    The layers are gone through from the last to the first, and one at a time is held with what its gradient needs.
    Gradients of the parameters are not touched.

    Args:
        vlm: the model.
        encoded: the prompt.
        own: its own image cache.
        other: the image cache whose vision keys and values would be read instead.
        answers: the answer, and the one that it is held against.

    Raises:
        InputError: where images don't fit, vision states depend on the text, or layers give no gradient.
    """
    if not can_share(vlm, encoded):
        raise InputError(
            f"Swaps can't be estimated on {vlm.model_id}: its prompts hold {len(encoded.spans)} image spans"
            + (" where one is needed." if vlm.shares_prefix else ", whose states depend on the text behind them.")
        )
    other.check_swappable(encoded)
    ids = [vlm.answer_ids(answer) for answer in answers]
    given = [row[:-1] for row in ids]  # what is read before the last token of each
    trace = _answered(vlm, encoded, own, given[:1] if given[0] == given[1] else given)
    log_odds, gradient = _log_odds(vlm, trace.hidden[-1], ids, encoded.length - own.length - 1)
    tokens = tokens_of(trace)
    masks = {id(mask): model_mask(vlm, mask, trace.hidden[0].dtype) for mask in trace.masks}
    slots = own.slots()
    drops = []
    for k in reversed(range(vlm.num_layers)):

        def layer(state: torch.Tensor, before: KeysValues, k: int = k) -> torch.Tensor:
            return run_layer(vlm, k, state, masks[id(trace.masks[k])], _Before(before), tokens)

        here = (own.keys[k], own.values[k])
        with torch.enable_grad():
            state = trace.hidden[k].detach().requires_grad_()
            output = layer(state, here)
        _need_gradient(vlm, output)
        there = (other.keys[k], other.values[k])
        swapped = layer(state.detach(), (_swapped(here[0], there[0], slots), _swapped(here[1], there[1], slots)))
        gradient = gradient.to(output.device)
        drops.append(-((swapped - output.detach()).double() * gradient.double()).sum())
        if k:
            (gradient,) = torch.autograd.grad(output, state, gradient)
    return SwapEstimates(log_odds, torch.stack([drop.cpu() for drop in reversed(drops)]))


class _Before:
    """Stands in for the model's cache: what the rows have before their own tokens is (1, H, S, D), the same for all."""

    def __init__(self, pair: KeysValues) -> None:
        self.pair = pair

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> KeysValues:
        """(R, H, n + m, D) new keys and values -> (R, H, S + n + m, D) all."""
        before = (part.to(keys.device).expand(len(keys), -1, -1, -1) for part in self.pair)
        all_keys, all_values = (torch.cat(both, dim=2) for both in zip(before, (keys, values), strict=True))
        return all_keys, all_values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens before those of the rows."""
        return int(self.pair[0].shape[2])


def _swapped(own: torch.Tensor, other: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """(1, H, S, D) with the vision tokens' entries of another image."""
    mixed = own.clone()
    mixed[:, :, slots.to(own.device)] = other[:, :, slots.to(other.device)].to(own.device)
    return mixed


def _answered(vlm: VLM, encoded: Encoded, own: ImageCache, given: Sequence[list[int]]) -> LayerTrace:
    """The plain model over the text, and the tokens of answers that each row is given after it.

    The shorter row is filled up behind its end, where nothing of it looks.
    """
    start, length, rows = own.length, max(map(len, given)), len(given)
    ids = encoded.input_ids
    fill = int(ids[0, -1])
    following = torch.tensor([row + [fill] * (length - len(row)) for row in given], dtype=ids.dtype, device=ids.device)
    ahead = encoded.positions[..., -1:] + torch.arange(1, length + 1, device=encoded.positions.device)
    positions = torch.cat([encoded.positions[..., start:], ahead], dim=-1)
    past = [
        (keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))
        for keys, values in zip(own.keys, own.values, strict=True)
    ]
    return trace_after(
        vlm,
        past,
        torch.cat([ids[:, start:].expand(rows, -1), following.view(rows, length)], dim=1),
        positions.expand(*positions.shape[:-2], rows, -1),
        start,
    )


def _log_odds(vlm: VLM, output: torch.Tensor, ids: Sequence[list[int]], first: int) -> tuple[float, torch.Tensor]:
    """The log-odds of the first answer against the second, and their gradient by (R, n + m, d) outputs of the layers.

    Args:
        first: the position that predicts an answer's first token.
    """
    with torch.enable_grad():
        state = output.detach().requires_grad_()
        logprobs = []
        for row, answer in enumerate(ids):
            logits = vlm.logits(state[min(row, len(state) - 1), first : first + len(answer)])
            logits = logits if logits.dtype == torch.float64 else logits.float()
            chosen = torch.tensor(answer, device=logits.device)[:, None]
            logprobs.append(torch.log_softmax(logits, dim=-1).gather(-1, chosen).mean())
        log_odds = logprobs[0] - logprobs[1].to(logprobs[0].device)
    (gradient,) = torch.autograd.grad(log_odds, state)
    return float(log_odds), gradient


def _need_gradient(vlm: VLM, output: torch.Tensor) -> None:
    if not output.requires_grad:
        raise InputError(
            f"Swaps can't be estimated on {vlm.model_id}: a layer of it gives no gradient, as its weights are held. "
            "Load it in another precision."
        )
