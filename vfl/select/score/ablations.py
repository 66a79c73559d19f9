"""Which layers are ablated for which function, from a function map and from what the user names."""

import logging
import re
from collections.abc import Mapping

from vfl.errors import InputError
from vfl.functionmap import FunctionMap, ModelId
from vfl.select.settings import ScoreConfig

logger = logging.getLogger(__name__)

CLASSES = ("text", "none", "blind", "unsolved")
"""Classes that are no function; see vfl.select.choose.classes."""
AND = " and "
"""Between functions that are scored together."""
_NAME = re.compile(r"[\w.-]+( [\w.-]+)*")


def ablations_of(config: ScoreConfig, fmap: FunctionMap | None, model: ModelId) -> dict[str, list[int]]:
    """Function -> layers of the model, in the map's order, a user's own last. A function without layers is left out.

    Raises:
        InputError: the map belongs to another model or lacks a function, layers are outside the model, or nothing is
            left to ablate.
    """
    found: dict[str, list[int]] = {}
    if fmap is not None:
        checked = fmap.check_model(**dict(model), allow_other_model=config.allow_other_model)
        for name in config.functions if config.functions is not None else checked.functions:
            if name in config.layers:
                continue
            if name not in checked.functions:
                raise InputError(f"The map has no function {name}; it has {', '.join(checked.functions)}.")
            if checked.functions[name].layers:
                found[name] = checked.layers_of(name)
            else:
                logger.warning("the map has no layers for %s: rows get no score for it (layers names your own)", name)
    elif config.functions is not None and (missing := [name for name in config.functions if name not in config.layers]):
        raise InputError(f"No layers are known for {', '.join(missing)}. Give --map, or layers of your own.")
    found |= {name: sorted(set(layers)) for name, layers in config.layers.items()}
    if not found:
        raise InputError(
            "There is no function to score: give --map with the map.json of `vfl locate`, or layers of your own, such "
            "as layers: {counting: 10-12}."
        )
    for name, layers in found.items():
        if outside := [layer for layer in layers if not 0 <= layer < model.num_layers]:
            raise InputError(
                f"{name} has layer {outside[0]}; the model has {model.num_layers}: 0 to {model.num_layers - 1}."
            )
        if not layers:
            raise InputError(f"The list of layers for {name} is empty.")
        if name in CLASSES or not _NAME.fullmatch(name):
            raise InputError(f"A function can't be called {name!r} here: it names a class or a column. Rename it.")
    return found


def sharing_layers(functions: Mapping[str, list[int]]) -> dict[str, list[str]]:
    """The functions that are scored together because no ablation tells them apart: a name of theirs -> them.

    A function whose layers are its own stands alone, under its own name. Order: of each group's first function.
    """
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, layers in functions.items():
        groups.setdefault(tuple(layers), []).append(name)
    for shared, names in groups.items():
        if len(names) > 1:
            logger.warning(
                "%s have the same layers (%s), and no score tells them apart: scored once, as %r",
                ", ".join(names), ", ".join(map(str, shared)), AND.join(names),
            )  # fmt: skip
    return {AND.join(names): names for names in groups.values()}
