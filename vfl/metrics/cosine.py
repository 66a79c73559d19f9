"""Adjacent-layer (geometric) redundancy by modality: how far a layer moves vision and text states.

    d(a, b) = 1 - cos(a, b), in [0, 2]
    dbar_m(l) = mean_i d(h_i[l], h_i[l+1]),   redundant: dbar_m(l) <= eps

over the tokens i of modality m, per sample, then averaged over samples. Layer l stands for the step from h[l] to
h[l+1], l = 0 .. L-1; h[L] is the state before the final norm. Sources: "Unmasking the functionality of early layers in
VLMs" (copying layers) and "Skip-It" (Hartman et al.).
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import torch

from vfl.engine.states import between_layers, forward, is_vision
from vfl.metrics.prompts import noted
from vfl.metrics.result import Result, mean_curve, mean_scalar, result
from vfl.metrics.spec import EARLY, SKIP, Metric
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

EPS = 0.05  # the papers name no eps; this is the proximal tau
TAU = 0.05


def cosine(vlm: VLM, prompts: Iterable[Encoded], *, eps: float = EPS) -> Result:
    """Mean cosine distance dbar_m(l) of adjacent layers, for vision and text tokens.

    Args:
        vlm: the model.
        prompts: N prompts.
        eps: a layer is a copying layer of a modality where dbar <= eps, with its whole interval.

    Returns:
        Curves "vision" and "text" (L points each, cosine distance, bootstrap over samples), scalars with their means
        over layers, and "copying": the copying layers of each modality; "undecided": those whose interval holds eps.
    """
    images: list[Hashable] = []
    samples = [adjacent_distances(vlm, encoded)[0] for encoded in noted(prompts, images)]
    return by_modality(samples, images, "copying", lambda value: value <= eps, {"eps": eps})


def adjacent_distances(vlm: VLM, encoded: Encoded, *, tau: float = TAU) -> torch.Tensor:
    """(2, 2, L) of one prompt: mean distance and share within tau, of vision and of text, at each layer."""
    return vlm.once([(encoded, ("distances", tau))], lambda places: [_adjacent_distances(vlm, encoded, tau)])[0]


def _adjacent_distances(vlm: VLM, encoded: Encoded, tau: float) -> torch.Tensor:
    vision = is_vision(encoded)
    distances = torch.zeros(2, 2, vlm.num_layers, dtype=torch.float64)

    def visit(layer_idx: int, before: torch.Tensor, after: torch.Tensor) -> None:
        distance = cosine_distance(before[0], after[0].to(before.device))
        for modality, here in enumerate((vision, ~vision)):
            chosen = distance[here.to(distance.device)]
            distances[0, modality, layer_idx] = chosen.mean(dtype=torch.float64).item()
            distances[1, modality, layer_idx] = (chosen <= tau).double().mean().item()

    with between_layers(vlm.layers, visit):
        forward(vlm, encoded)
    return distances


def cosine_distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """1 - cos over the last dimension, at least in float32: in bfloat16 every small distance would be 0 or 1/256."""
    wide = torch.promote_types(first.dtype, torch.float32)
    similarity = torch.nn.functional.cosine_similarity(first.to(wide), second.to(wide), dim=-1)
    return (1 - similarity).clamp(0, 2)  # rounding leaves the range by 1e-7


def by_modality(
    samples: Sequence[torch.Tensor],
    images: Sequence[Hashable],
    listed: str,
    passes: Callable[[float], bool],
    options: dict[str, Any],
) -> Result:
    """A result of (2, L) samples on images, vision and text.

    `listed` names the layers whose whole interval passes (the mean where one image has none), "undecided" those of
    which one end does.
    """
    curves = {}
    scalars = {}
    for modality, name in enumerate(("vision", "text")):
        values = [sample[modality].tolist() for sample in samples]
        curves[name] = mean_curve(values, clusters=images)
        scalars[name] = mean_scalar([sum(value) / len(value) for value in values], clusters=images)
    layers: dict[str, dict[str, list[int]]] = {listed: {}, "undecided": {}}
    for name, curve in curves.items():
        ends = [
            [passes(value if end is None else end) for end in (low, high)]
            for value, low, high in zip(curve["value"], curve["low"], curve["high"], strict=True)
        ]
        layers[listed][name] = [at for at, passed in enumerate(ends) if all(passed)]
        layers["undecided"][name] = [at for at, passed in enumerate(ends) if any(passed) and not all(passed)]
    settled = {**options, "vision": "span", "last_state": "before the final norm"}
    return result(len(samples), scalars, curves, settled, **layers)


SPEC = Metric(
    function=cosine,
    needs="prompts",
    title="Distance of adjacent layers",
    read="How far a layer turns a token’s state: 0 is not at all. Vision near 0 where text moves marks layers that "
    "copy the image along; a layer is listed where its whole interval lies at ε or below, and undecided where ε lies "
    "within it. The last point compares states before the final norm.",
    use="Take the layers listed as copying for vision as candidates for late entry, and check them with late_entry "
    "before you skip any.",
    source=f"{EARLY}; geometric redundancy in {SKIP}",
    equation="d̄ₘ(l) = meanᵢ (1 − cos(hᵢ[l], hᵢ[l+1])) over the tokens i of a modality m",
    unit="cosine distance",
)
