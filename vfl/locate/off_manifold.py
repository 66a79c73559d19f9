"""Are swapped states such as the model has without a swap? Their distance from the nearest ordinary ones, by layer.

A swap shows the text one image in one layer and another in all the others, which no prompt does. If the states that
this gives lie far from all ordinary ones, a changed answer may come of that rather than of what was swapped.

Legend: L layers, P pairs, N ordinary states, d model width.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from vfl.engine.layer_hooks import layer_hooks
from vfl.engine.plan import Plan
from vfl.engine.row_start import Reading, RowStart, row_start
from vfl.engine.sweep import sweep
from vfl.models.vlm import VLM
from vfl.probes.asking import Asker
from vfl.probes.pair import Pair, Which
from vfl.proofs import OffManifold

PAIRS = 30  # of a function: two ordinary states each are enough for a nearest one


def off_manifold(asker: Asker, pairs: Sequence[Pair], reading: Reading = "text") -> OffManifold:
    """How far states at the answer's position lie from ordinary ones, at the output of the layer that was swapped.

    Ordinary are the states of the pairs' target and source prompts without a swap, the pair's own among them. The unit
    is the median distance of an ordinary state from the nearest other one: 1 is as far as ordinary prompts lie apart.
    Each state is that of a row of the sweep.

    Args:
        asker: of the model.
        pairs: of one function, such as it answers rightly; the first `PAIRS` are taken.
        reading: who sees the swap (see `sweep`).
    """
    num_layers = asker.vlm.num_layers
    ordinary: dict[tuple[str, str], torch.Tensor] = {}
    swapped = []
    for pair in pairs[:PAIRS]:
        images: list[tuple[Pair, Which]] = [(pair, "image"), (pair, "source_image")]
        target, source = asker.ask_images(images)
        start = row_start(asker.vlm, target.encoded, reading, target.image_cache)
        for which, asked in (("image", target), ("source_image", source)):
            whole = Plan.swap(range(num_layers), asked.image_cache)
            key = pair.question, getattr(pair, which)
            if key not in ordinary:
                ordinary[key] = torch.stack(_states(asker.vlm, start, whole, range(num_layers)))
        alone = [_states(asker.vlm, start, Plan.swap([k], source.image_cache), [k])[0] for k in range(num_layers)]
        swapped.append(torch.stack(alone))
    ratios = distances(torch.stack(swapped), torch.stack(list(ordinary.values())))
    known = [None if bool(torch.isnan(of_layer).any()) else of_layer.numpy() for of_layer in ratios.T]
    return OffManifold(
        ratio=[None if values is None else round(float(np.median(values)), 3) for values in known],
        high=[None if values is None else round(float(np.quantile(values, 0.9)), 3) for values in known],
        pairs=len(swapped),
        states=len(ordinary),
    )


def distances(swapped: torch.Tensor, ordinary: torch.Tensor) -> torch.Tensor:
    """(P, L) distance of each state from the nearest ordinary one, in the median of these from each other.

    NaN in layers where ordinary states don't differ.

    Args:
        swapped: (P, L, d).
        ordinary: (N, L, d).
    """
    swapped, ordinary = (states.double().transpose(0, 1) for states in (swapped, ordinary))  # (L, ., d)
    apart = torch.cdist(ordinary, ordinary, compute_mode="donot_use_mm_for_euclid_dist")  # (L, N, N)
    apart.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    unit = apart.amin(dim=2).median(dim=1).values  # (L,)
    nearest = torch.cdist(swapped, ordinary, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=2)  # (L, P)
    unit = torch.where((unit > 0) & unit.isfinite(), unit, torch.nan)
    return (nearest / unit[:, None]).T


def _states(vlm: VLM, start: RowStart, plan: Plan, layers: Iterable[int]) -> list[torch.Tensor]:
    """(d,) for each layer, at whose output the plan's row has it at the last position of the prompt."""
    wanted = list(layers)
    seen: dict[int, torch.Tensor] = {}

    def leave(layer_idx: int, output: torch.Tensor, _: object) -> None:
        seen[layer_idx] = output[0, -1].float().cpu()

    with layer_hooks(vlm.layers, leave=leave, only=wanted):
        sweep(vlm, start.encoded, [plan], start=start)
    return [seen[layer] for layer in wanted]
