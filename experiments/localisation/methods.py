"""The methods: each gives every layer a number from the same kept pairs, or names layers by a rule of its own.

Shapes: L layers, P kept pairs; a score is (P, L), larger where a layer matters more.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from transformers import DynamicCache

from experiments.localisation.asked import Kept
from vfl.engine.attention_tap import tapped
from vfl.engine.image_cache import ImageCache
from vfl.engine.plan import Plan
from vfl.engine.states import between_layers
from vfl.engine.swap_estimates import swap_estimates
from vfl.models.vlm import VLM

STEPS = 8  # of integrated gradients, by the midpoint rule
KeysValues = list[tuple[torch.Tensor, torch.Tensor]]


def swapped(vlm: VLM, kept: Sequence[Kept]) -> np.ndarray:
    """Whether a layer that reads the source's image changes the answer."""
    plans = [[Plan.swap([layer], pair.other) for layer in range(vlm.num_layers)] for pair in kept]
    return np.array([pair.changed(vlm, of_pair) for pair, of_pair in zip(kept, plans, strict=True)], dtype=float)


def hidden(vlm: VLM, kept: Sequence[Kept]) -> np.ndarray:
    """Whether a layer that reads no image changes the answer: attention knockout from vision to text."""
    plans = [Plan.hide([layer]) for layer in range(vlm.num_layers)]
    return np.array([pair.changed(vlm, plans) for pair in kept], dtype=float)


def hidden_windows(vlm: VLM, kept: Sequence[Kept]) -> np.ndarray:
    """As `hidden` for a layer and its neighbours together, as published knockouts do."""
    last = vlm.num_layers - 1
    plans = [Plan.hide(range(max(0, layer - 1), min(last, layer + 1) + 1)) for layer in range(last + 1)]
    return np.array([pair.changed(vlm, plans) for pair in kept], dtype=float)


def gradients(vlm: VLM, kept: Sequence[Kept]) -> np.ndarray:
    """Attribution patching (Nanda 2023): the gradient by a layer's vision keys and values, times their difference."""
    return np.stack([_attributed(vlm, pair, [0.0]) for pair in kept])


def integrated(vlm: VLM, kept: Sequence[Kept]) -> np.ndarray:
    """Integrated gradients (Sundararajan et al. 2017) on the straight way from own to other keys and values."""
    return np.stack([_attributed(vlm, pair, [(step + 0.5) / STEPS for step in range(STEPS)]) for pair in kept])


def exact_layers(vlm: VLM, kept: Sequence[Kept]) -> np.ndarray:
    """Attribution patching with each layer's own attention and MLP computed exactly (cf. AtP*, arXiv 2403.00745)."""
    return np.stack(
        [swap_estimates(vlm, pair.target, pair.own, pair.other, pair.answers).drops.abs().numpy() for pair in kept]
    )


def attention(vlm: VLM, kept: Sequence[Kept]) -> np.ndarray:
    """Attention to the image from the place where the two answers part, mean over heads (VAR)."""
    return np.stack([_attended(vlm, pair, slice(None)).mean(-1) for pair in kept])


def attention_there(vlm: VLM, kept: Sequence[Kept]) -> np.ndarray:
    """Attention to what differs between the images, of the layer's head that has most of it."""
    return np.stack([_attended(vlm, pair, pair.differing).max(-1) for pair in kept])


def lens(vlm: VLM, kept: Sequence[Kept]) -> np.ndarray:
    """By how many nats a layer raises the logit lens' odds of the answer's first differing token, at its place."""
    return np.stack([_lens_rises(vlm, pair) for pair in kept])


SCORES: dict[str, Callable[[VLM, Sequence[Kept]], np.ndarray]] = {
    "swap, one layer": swapped,
    "knockout, one layer": hidden,
    "knockout, windows of 3": hidden_windows,
    "attribution patching": gradients,
    "attribution, exact layer": exact_layers,
    "integrated gradients": integrated,
    "attention to the image": attention,
    "attention to what differs": attention_there,
    "logit lens": lens,
}


def _attributed(vlm: VLM, pair: Kept, shares: Sequence[float]) -> np.ndarray:
    """(L,) how much of the log-odds each layer takes, by gradients at points between own and other caches."""
    slots = pair.own.slots()
    whole = np.zeros(vlm.num_layers)
    differences = [
        (other_keys[:, :, slots] - keys[:, :, slots], other_values[:, :, slots] - values[:, :, slots])
        for keys, values, other_keys, other_values in _layers(pair.own, pair.other)
    ]
    for share in shares:
        vision = [
            (
                (keys[:, :, slots] + share * by_keys).requires_grad_(),
                (values[:, :, slots] + share * by_values).requires_grad_(),
            )
            for (keys, values, _, _), (by_keys, by_values) in zip(
                _layers(pair.own, pair.other), differences, strict=True
            )
        ]
        with torch.enable_grad():
            odds = _log_odds(vlm, pair, vision)
            leaves = [leaf for both in vision for leaf in both]
            grads = torch.autograd.grad(odds, leaves)
        for layer, (by_keys, by_values) in enumerate(differences):
            taken = (grads[2 * layer] * by_keys).sum() + (grads[2 * layer + 1] * by_values).sum()
            whole[layer] -= float(taken) / len(shares)
    return np.abs(whole)


def _layers(
    own: ImageCache, other: ImageCache
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
    return zip(own.keys, own.values, other.keys, other.values, strict=True)


def _log_odds(vlm: VLM, pair: Kept, vision: KeysValues) -> torch.Tensor:
    """Mean log-probability per token of the pair's answer less that of the other, where layers read `vision`."""
    encoded, start = pair.target, pair.own.length
    slots = pair.own.slots()
    scores = []
    for answer in pair.answers:
        ids = vlm.answer_ids(answer)
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(vision):
            read = [
                torch.index_copy(whole, 2, slots, part)
                for whole, part in ((pair.own.keys[layer], keys), (pair.own.values[layer], values))
            ]
            cache.update(*read, layer)
        given = torch.tensor([ids[:-1]], dtype=encoded.input_ids.dtype).reshape(1, -1)
        tokens = torch.cat([encoded.input_ids[:, start:], given], dim=1)
        ahead = encoded.positions[..., -1:] + torch.arange(1, len(ids))
        positions = torch.cat([encoded.positions[..., start:], ahead], dim=-1)
        out = vlm.parts.decoder(
            inputs_embeds=vlm.embed(tokens), position_ids=positions, past_key_values=cache, use_cache=True
        )
        logits = vlm.parts.head(out.last_hidden_state[0, -len(ids) :]).float()
        scores.append(torch.log_softmax(logits, -1).gather(-1, torch.tensor(ids)[:, None]).mean())
    return scores[0] - scores[1]


def _attended(vlm: VLM, pair: Kept, which: np.ndarray | slice) -> np.ndarray:
    """(L, H) attention to some of the vision tokens from the place where the two answers part."""
    slots = pair.own.slots()[which if isinstance(which, slice) else torch.tensor(which)]
    by_layer: list[torch.Tensor] = []
    given, _, _ = _parting(vlm, pair)
    with torch.no_grad(), tapped(vlm, read=lambda layer, weights: by_layer.append(weights[0, :, 0][:, slots].sum(-1))):
        _with_answer(vlm, pair, given)
    return torch.stack(by_layer).double().numpy()


def _lens_rises(vlm: VLM, pair: Kept) -> np.ndarray:
    """(L,) rises of the log-odds of the answers' first differing tokens, read off the states where they part."""
    given, ours, theirs = _parting(vlm, pair)
    odds: list[float] = []

    def visit(layer_idx: int, before: torch.Tensor, after: torch.Tensor) -> None:
        for state in (before, after) if layer_idx == 0 else (after,):
            logits = vlm.logits(state[0, -1]).float()
            odds.append(float(logits[ours] - logits[theirs]))

    with torch.no_grad(), between_layers(vlm.layers, visit):
        _with_answer(vlm, pair, given)
    return np.diff(odds)


def _parting(vlm: VLM, pair: Kept) -> tuple[list[int], int, int]:
    """The tokens that both answers begin with, and those with which they go on."""
    ours, theirs = (vlm.answer_ids(answer) + sorted(vlm.end_ids())[:1] for answer in pair.answers)
    same = next(n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
    return ours[:same], ours[same], theirs[same]


def _with_answer(vlm: VLM, pair: Kept, given: list[int]) -> None:
    """One pass over the text after the image, and tokens of an answer."""
    encoded, start = pair.target, pair.own.length
    cache = DynamicCache()
    for layer, both in enumerate(zip(pair.own.keys, pair.own.values, strict=True)):
        cache.update(*both, layer)
    tokens = torch.cat([encoded.input_ids[:, start:], torch.tensor([given], dtype=torch.long).reshape(1, -1)], dim=1)
    ahead = encoded.positions[..., -1:] + torch.arange(1, len(given) + 1)
    positions = torch.cat([encoded.positions[..., start:], ahead], dim=-1)
    vlm.parts.decoder(inputs_embeds=vlm.embed(tokens), position_ids=positions, past_key_values=cache, use_cache=True)
