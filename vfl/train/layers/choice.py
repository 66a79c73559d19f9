"""Which decoder layers an experiment's arm trains.

layers: full
layers: 10-17,20-23
layers: [10, 11]
layers: {functions: [counting], map: map.json, expand: 2, arm: reversed}
"""

import logging
import random
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from vfl.errors import InputError
from vfl.functionmap import FunctionMap, ModelId
from vfl.io.config import known_keys, unknown_key
from vfl.io.fields import Names
from vfl.io.layers import layer_list, parse_layers
from vfl.train.layers.presets import preset

logger = logging.getLogger(__name__)

Arm = Literal["function", "full", "reversed", "random"]


def _listed(value: Any) -> Any:
    """As it was written; that there is a layer, and each once, is said with the model's name (`checked_layers`)."""
    return value if value in ([], ()) else parse_layers(value, words=", or full")


class LayerChoice(BaseModel):
    """The set of layers and the arm that is trained on it.

    The set comes from `functions` with a `map`, from a `preset`, or from a `list`. Arm `function` trains the set,
    `reversed` all other layers, `random` as many layers as the set has, drawn with `seed` from all layers, and `full`
    all layers (it needs no set). `expand` adds that many layers on each side of the functions' layers, clipped.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True)

    functions: Names = ()
    map: Path | None = None
    expand: int = Field(default=0, ge=0)
    arm: Arm = "function"
    seed: int = 0
    preset: str | None = None
    # `list` itself would hide the type in this class.
    layers: Annotated[tuple[int, ...], BeforeValidator(_listed)] | None = Field(default=None, alias="list")
    allow_other_model: bool = False

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        """A string or a list stands for a choice of its own."""
        if isinstance(value, str):
            return {"arm": "full"} if value.strip() == "full" else {"list": value}
        if isinstance(value, int | list | tuple):
            return {"list": value}
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = {
            "functions": bool(self.functions),
            "preset": self.preset is not None,
            "list": self.layers is not None,
        }
        named = [name for name, there in sources.items() if there]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} both name layers; keep one of them")
        if not named and self.arm != "full":
            raise ValueError(
                f"arm {self.arm!r} needs a set of layers: functions with a map, a preset, or a list; or arm: full"
            )
        if self.map is not None and not self.functions and self.arm != "full":
            raise ValueError("a map is given, but no functions: name them, such as functions: [counting]")
        if self.expand and not self.functions:
            raise ValueError("expand widens the functions' layers; without functions, write the wider list itself")
        return self


def read_choice(value: Any) -> LayerChoice:
    """A choice from what a person wrote: a string, a list, or keys and values.

    Raises:
        InputError: says what is wrong, and with which key.
    """
    try:
        return LayerChoice.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, ("layers", *first["loc"])))
        if first["type"] == "extra_forbidden":
            raise InputError(unknown_key(str(first["loc"][-1]), known_keys(LayerChoice), "layers.") + ".") from None
        raise InputError(f"{where}: {first['msg'].removeprefix('Value error, ')}.") from None


def chosen_layers(choice: LayerChoice, model: ModelId, fmap: FunctionMap | None = None) -> list[int]:
    """The layers that this choice trains on this model, ascending.

    Args:
        choice: the recipe's `layers`.
        model: the model at hand; a map or preset of another model is refused.
        fmap: the map, where it is loaded already; else `choice.map` is read.

    Raises:
        InputError: for layers out of range, repeated or none; names the model and its layer count.
    """
    total = model.num_layers
    if choice.arm == "full":
        return list(range(total))
    base = _base(choice, model, fmap)
    if choice.arm == "reversed":
        rest = sorted(set(range(total)) - set(base))
        if not rest:
            raise InputError(
                f"arm 'reversed' trains the layers outside the set, but the set holds all {total} layers of {model.id}."
            )
        return rest
    if choice.arm == "random":
        drawn = sorted(random.Random(choice.seed).sample(range(total), len(base)))
        shared = len(set(drawn) & set(base))
        logger.info("random layers %s: %d of %d are in the set itself", layer_list(drawn), shared, len(drawn))
        return drawn
    return base


def checked_layers(layers: list[int] | tuple[int, ...], model: ModelId, source: str) -> list[int]:
    """Ascending layers of a list that a person wrote.

    Raises:
        InputError: for none, repeats, or layers that the model does not have.
    """
    has = f"{model.id} has {model.num_layers} decoder layers, 0 to {model.num_layers - 1}"
    if not layers:
        raise InputError(f"{source} names no layer. {has}; name at least one, or use layers: full.")
    if outside := sorted({layer for layer in layers if not 0 <= layer < model.num_layers}):
        raise InputError(f"{source} names layer {layer_list(outside)}, but {has}.")
    if twice := sorted({layer for layer in layers if layers.count(layer) > 1}):
        raise InputError(f"{source} names layer {layer_list(twice)} more than once. {has}; name each once.")
    return sorted(layers)


def _base(choice: LayerChoice, model: ModelId, fmap: FunctionMap | None) -> list[int]:
    """The set itself, before the arm."""
    if choice.layers is not None:
        return checked_layers(choice.layers, model, "The list of layers")
    if choice.preset is not None:
        return _preset_layers(choice.preset, model, choice.allow_other_model)
    if fmap is None:
        if choice.map is None:
            raise InputError(
                f"The layers of {', '.join(choice.functions)} are asked for, but no map says which they are. Give "
                "map: map.json, as `vfl locate` writes it."
            )
        fmap = FunctionMap.load(choice.map)
    fitting = fmap.check_model(
        id=model.id,
        num_layers=model.num_layers,
        revision=model.revision,
        weights_sha256=model.weights_sha256,
        family=model.family,
        allow_other_model=choice.allow_other_model,
    )
    return fitting.layers_of(choice.functions, expand=choice.expand)


def _preset_layers(name: str, model: ModelId, allow_other_model: bool) -> list[int]:
    stated = preset(name)
    if model.num_layers != stated.num_layers or (model.family != stated.family and not allow_other_model):
        raise InputError(
            f"The preset {name} is for {stated.family} with {stated.num_layers} layers; {model.id} is "
            f"{model.family} with {model.num_layers}. Locate its own layers with `vfl locate {model.id}`."
        )
    logger.info("preset %s: %s", name, stated.source)
    return list(stated.layers)
