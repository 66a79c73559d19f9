"""Several metrics by name on one model and one set of probe pairs: what training callbacks and commands call."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from inspect import isfunction, signature
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from vfl import metrics
from vfl.errors import InputError
from vfl.io.did_you_mean import did_you_mean
from vfl.metrics.prompts import prompts_of
from vfl.metrics.result import Result
from vfl.metrics.spec import Metric
from vfl.models.vlm import VLM
from vfl.probes.pair import Pair


def known_metrics() -> dict[str, Metric]:
    """Name -> description of every metric that `vfl.metrics` exports, in the order of its list."""
    specs = {}
    for function in filter(isfunction, vars(metrics).values()):
        spec = sys.modules[function.__module__].SPEC
        specs[spec.name] = spec
    return specs


def options_of(name: str) -> list[str]:
    """The options that a metric takes."""
    return list(signature(known_metrics()[name].function).parameters)[2:]  # after the model and what is measured on


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
        names: metrics, see `known_metrics`. Those of prompts take each pair's question on its target image.
        pairs: probe pairs.
        options: metric -> keyword arguments of its function.

    Returns:
        Metric -> its result, plain data (see vfl/metrics/result.py), in the order of `names`.

    Raises:
        InputError: for unknown names or options, no pairs, or a model in training mode.

    Example:
        >>> measure_named(vlm, ["cosine", "drop"], pairs, options={"cosine": {"eps": 0.02}})  # doctest: +SKIP
    """
    chosen, options = list(dict.fromkeys(names)), dict(options or {})
    check_names(chosen)
    check_options(chosen, options)
    if not pairs:
        raise InputError("No probe pairs were given to measure on. Give at least one.")
    if vlm.model.training:
        raise InputError("The model is in training mode, where dropout changes every number. Call model.eval() first.")
    specs = known_metrics()
    return {name: _measure(vlm, specs[name], pairs, options.get(name, {})) for name in chosen}


def check_names(names: Iterable[str]) -> None:
    """Refuse names that are no metrics, before a long run.

    Raises:
        InputError: lists the known ones.
    """
    known = known_metrics()
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"Unknown metrics {', '.join(map(repr, unknown))}; choose from {', '.join(known)}.")


def check_options(names: Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse options of metrics that are unknown or not measured, options that a metric does not have, and values of
    another kind than the metric takes.

    Raises:
        InputError: names what is unknown and what there is, or the value and what was expected.
    """
    check_names(options)
    if idle := [name for name in options if name not in names]:
        raise InputError(f"Options were given for {', '.join(idle)}, not measured here. Name it, or leave them out.")
    for name, chosen in options.items():
        known = options_of(name)
        if unknown := [option for option in chosen if option not in known]:
            hint = did_you_mean(unknown[0], known)
            raise InputError(
                f"{name} has no option {', '.join(unknown)}; it takes {', '.join(known) or 'none'}."
                + (f" {hint[0].upper()}{hint[1:]}" if hint else "")
            )
        hints = get_type_hints(known_metrics()[name].function)
        for option, value in chosen.items():
            _check_kind(f"{name}.{option}", value, hints.get(option, Any))


def _check_kind(option: str, value: Any, kind: Any) -> None:
    """Refuse a value that is not of an option's annotated kind; strictly, since the value itself is what is used."""
    text = json.dumps(value, default=lambda other: list(other) if isinstance(other, Iterable) else str(other))
    try:
        TypeAdapter(kind).validate_json(text, strict=True)  # of JSON, where a list may be meant for a tuple
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(f"The option {option} is {value!r}: {first['msg'].lower()}.") from error
    if kind == Sequence[str] and not value:
        raise InputError(f"The option {option} names nothing; name one or more, or leave it out.")
    if _below_0(value):
        raise InputError(f"The option {option} is {value!r}: counts, layers and seeds are 0 or more.")


def _below_0(value: Any) -> bool:
    """Whether a whole number below 0 is among these; no metric counts anything so."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return any(map(_below_0, value))
    return isinstance(value, int) and value < 0


def _measure(vlm: VLM, spec: Metric, pairs: Sequence[Pair], options: Mapping[str, Any]) -> Result:
    if spec.only_images and vlm.family.modality != "image":
        raise InputError(f"{spec.name} does not apply to {vlm.family.name}, which hears sounds: {spec.only_images}.")
    if spec.needs == "prompts":
        return spec.function(vlm, prompts_of(vlm, pairs), **options)
    return spec.function(vlm, pairs, **options)
