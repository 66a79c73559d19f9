"""What each head's attention to the image says, head by head.

    w[l, h] = sum_i a_i   attention to the image tokens i

Source: "Unveiling Visual Perception in Language Models" (Bi et al., CVPR 2025). Query "token" is the generated token
itself, as in the paper; "predicts" the position before it (see var.py).
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import torch

from vfl.engine.decoder_inputs import alike_groups
from vfl.engine.memory import prompt_limit
from vfl.engine.states import is_image_token
from vfl.metrics.edited_prompts import fitting
from vfl.metrics.prompts import in_lots, noted
from vfl.metrics.result import Result, mean_curve, mean_scalar, result, table
from vfl.metrics.var import Query, read_together
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

TOP = 30

ValueOf = Callable[[int, torch.Tensor], torch.Tensor]


def image_attention(vlm: VLM, prompts: Iterable[Encoded], *, query: Query = "token") -> Result:
    """Attention w[l, h] to the image tokens, in 0 .. 1; see `by_head`."""
    return by_head(vlm, prompts, query, lambda layer_idx, weights: weights.sum(-1), {})


def by_head(vlm: VLM, prompts: Iterable[Encoded], query: Query, value_of: ValueOf, options: dict[str, Any]) -> Result:
    """A value of every head.

    Args:
        vlm: the model.
        prompts: N prompts.
        query: whose attention, see above.
        value_of: as of `head_values`.
        options: what else changes a number.

    Returns:
        Curve "heads" (L points: mean over heads, bootstrap over samples), scalar "heads" (mean over all heads),
        "heads": L x H table of means over samples, and "top": the highest heads with layer, head and value.
    """
    images: list[Hashable] = []
    samples = values_of_all(vlm, noted(prompts, images), value_of, query=query)
    return of_heads(samples, images, query, options)


def of_heads(samples: list[torch.Tensor], images: Sequence[Hashable], query: Query, options: dict[str, Any]) -> Result:
    """The result of (L, H) samples on images; see `by_head`."""
    curves = {"heads": mean_curve([sample.mean(1).tolist() for sample in samples], clusters=images)}
    scalars = {"heads": mean_scalar([float(sample.mean()) for sample in samples], clusters=images)}
    means = torch.stack(samples).mean(0)
    settled = {"query": query, **options, "vision": "image tokens"}
    return result(len(samples), scalars, curves, settled, heads=table(means), top=highest(means))


def values_of_all(
    vlm: VLM, prompts: Iterable[Encoded], value_of: ValueOf, *, query: Query = "token"
) -> list[torch.Tensor]:
    """`head_values` with one `value_of` for all prompts."""
    return [values for lot in in_lots(prompts) for values in head_values(vlm, lot, [value_of] * len(lot), query=query)]


def head_values(
    vlm: VLM, prompts: Sequence[Encoded], values_of: Sequence[ValueOf], *, query: Query = "token"
) -> list[torch.Tensor]:
    """(L, H, ...) values of each prompt, from its `value_of(l, a)` on (H, N) attention to its N image tokens, by layer.

    Prompts that are alike are one batch.
    """
    values: list[list[torch.Tensor]] = [[] for _ in prompts]

    def run(part: Sequence[int]) -> Sequence[int]:
        for at in part:
            values[at].clear()  # of a try that ran out of memory

        def read(layer_idx: int, weights: torch.Tensor) -> None:
            for row, at in enumerate(part):
                here = is_image_token(vlm, prompts[at])
                attention = weights[row, :, 0, : len(here)]
                on_image = attention[:, here.to(attention.device)]
                values[at].append(values_of[at](layer_idx, on_image).double().cpu())

        read_together(vlm, [prompts[at] for at in part], read, query=query)
        return part

    for group in alike_groups(vlm, prompts):
        fitting(vlm, group, prompt_limit(vlm, prompts[group[0]].length + 1), run)
    return [torch.stack(of_prompt) for of_prompt in values]


def highest(means: torch.Tensor) -> list[dict[str, int | float]]:
    """The first TOP heads of an (L, H) table, highest first, each with layer, head and value."""
    ranked = means.flatten().argsort(descending=True, stable=True)[:TOP].tolist()
    places = [divmod(at, means.shape[1]) for at in ranked]
    return [{"layer": layer, "head": head, "value": float(means[layer, head])} for layer, head in places]
