"""Several metrics by name on one model and one set of probe pairs: what training callbacks and commands call."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from typing import Any

from vfl.errors import InputError
from vfl.metrics.ablation import token_ablation
from vfl.metrics.cosine import cosine, proximal
from vfl.metrics.drop import drop
from vfl.metrics.early import late_entry, mask
from vfl.metrics.functional import functional
from vfl.metrics.head_masking import head_masking
from vfl.metrics.head_weight import weights_of_pairs
from vfl.metrics.heads import concentration, head_score
from vfl.metrics.informational import informational
from vfl.metrics.injection import injection
from vfl.metrics.knockout import knockout
from vfl.metrics.lens import lens
from vfl.metrics.persistence import persistence
from vfl.metrics.prompts import prompts_of
from vfl.metrics.recommended import recommended
from vfl.metrics.result import Result
from vfl.metrics.similarity import similarity
from vfl.metrics.swap import swap
from vfl.metrics.var import var
from vfl.metrics.visual_prompt import visual_prompt
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM
from vfl.probes.pair import Pair

OF_PROMPTS: dict[str, Callable[..., Result]] = {
    "cosine": cosine,
    "proximal": proximal,
    "persistence": persistence,
    "similarity": similarity,
    "informational": informational,
    "var": var,
    "concentration": concentration,
    "head_score": head_score,
}
OF_PAIRS: dict[str, Callable[..., Result]] = {
    "head_weight": weights_of_pairs,
    "swap": swap,
    "drop": drop,
    "mask": mask,
    "late_entry": late_entry,
    "injection": injection,
    "token_ablation": token_ablation,
    "lens": lens,
    "knockout": knockout,
    "functional": functional,
    "head_masking": head_masking,
    "visual_prompt": visual_prompt,
    "recommended": recommended,
}
KNOWN = (*OF_PROMPTS, *OF_PAIRS)
# What a model that hears sounds can't be asked, and why.
ONLY_IMAGES = {
    "token_ablation": "it replaces the tokens of an object's place in the picture",
    "lens": "it asks what the patches of an object spell",
    "knockout": "it cuts attention from an object's place and from rows of the picture",
    "visual_prompt": "it draws a box into the picture",
}


def measure_named(
    vlm: VLM,
    names: Iterable[str],
    pairs: Sequence[Pair],
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Result]:
    """Measure metrics on probe pairs; the model is left as it was.

    Args:
        vlm: the model, in evaluation mode (dropout would make every number random).
        names: metrics, see `KNOWN`. Those that look at prompts take each pair's question on its target image.
        pairs: probe pairs.
        options: metric -> keyword arguments of its function.

    Returns:
        Metric -> its result, plain data (see vfl/metrics/result.py), in the order of `names`.

    Raises:
        InputError: for unknown names, no pairs, or a model in training mode.

    Example:
        >>> measure_named(vlm, ["cosine", "drop"], pairs, options={"cosine": {"eps": 0.02}})  # doctest: +SKIP
    """
    chosen, given = list(dict.fromkeys(names)), dict(options or {})
    check_names([*chosen, *given])
    if idle := [name for name in given if name not in chosen]:
        raise InputError(f"Options were given for {', '.join(idle)}, not measured here. Name it, or leave them out.")
    for name, named in given.items():
        known = list(signature((OF_PROMPTS | OF_PAIRS)[name]).parameters)[2:]  # after the model and what is measured on
        if unknown := [option for option in named if option not in known]:
            raise InputError(f"{name} has no option {', '.join(unknown)}; it takes {', '.join(known)}.")
    if not pairs:
        raise InputError("No probe pairs were given to measure on. Give at least one.")
    if vlm.model.training:
        raise InputError("The model is in training mode, where dropout changes every number. Call model.eval() first.")
    return {name: _measure(vlm, name, pairs, given.get(name, {})) for name in chosen}


def check_names(names: Iterable[str]) -> None:
    """Refuse names that are no metrics, before a long run.

    Raises:
        InputError: lists the known ones.
    """
    if unknown := [name for name in names if name not in KNOWN]:
        raise InputError(f"Unknown metrics {', '.join(map(repr, unknown))}; choose from {', '.join(KNOWN)}.")


def _measure(vlm: VLM, name: str, pairs: Sequence[Pair], options: Mapping[str, Any]) -> Result:
    if name in ONLY_IMAGES and vlm.family.modality != "image":
        raise InputError(f"{name} does not apply to {vlm.family.name}, which hears sounds: {ONLY_IMAGES[name]}.")
    if name in OF_PROMPTS:
        prompts: Iterable[Encoded] = prompts_of(vlm, pairs)
        return OF_PROMPTS[name](vlm, prompts, **options)
    return OF_PAIRS[name](vlm, pairs, **options)
