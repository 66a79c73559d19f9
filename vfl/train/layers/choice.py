"""Which decoder layers an experiment's arm trains.

layers: full
layers: 10-17,20-23
layers: [10, 11]
layers: {functions: [counting], map: map.json, expand: 2, arm: reversed}
layers: auto
layers: {rule: gradient, count: 8, modules: attention}

A `rule` may also name an arm: {rule: function, functions: [counting], map: map.json} is {functions: ..., map: ...}.
"""

import logging
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from vfl.errors import InputError
from vfl.functionmap import FunctionMap, ModelId
from vfl.io.config import known_keys, unknown_key
from vfl.io.fields import Names
from vfl.io.layers import layer_list, parse_layers
from vfl.train.layers.presets import preset
from vfl.train.layers.rules import drawn, evenly_spaced

logger = logging.getLogger(__name__)

Arm = Literal["function", "full", "reversed", "random"]
# Those but for auto and uniform read the training data: they are decided in vfl.train.choose_layers.
Rule = Literal["auto", "gradient", "fisher", "warmup", "similarity", "uniform"]
HALF = 0.5  # of the layers, where a rule is asked for without a count or share


def _listed(value: Any) -> Any:
    """As it was written; that there is a layer, and each once, is said with the model's name (`checked_layers`)."""
    return value if value in ([], ()) else parse_layers(value, words=", or full")


class LayerChoice(BaseModel):
    """The set of layers and the arm that is trained on it.

    The set comes from `functions` with a `map`, from a `preset`, or from a `list`. Arm `function` trains the set,
    `reversed` all other layers, `random` as many layers as the set has, drawn with `seed` from all layers, and `full`
    all layers (it needs no set). `expand` adds that many layers on each side of the functions' layers, clipped.

    A `rule` needs no set: `auto` trains all layers at `share` of the rank (0.3), `uniform` spaces layers evenly, the
    others rank them by the training rows and take `count` of them, or `share` of the model's. Functions and a map
    beside such a rule only tell what kind of shift the data is. `modules` are those of a layer that are adapted.
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
    rule: Rule | None = None
    count: int | None = Field(default=None, ge=1)
    share: float | None = Field(default=None, gt=0, le=1)
    rows: int = Field(default=64, ge=1, description="training rows that a rule reads")
    modules: Literal["all", "attention", "mlp"] | tuple[str, ...] = "all"

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        """A string or a list stands for a choice of its own, and a rule may name an arm or say `list`."""
        if isinstance(value, str):
            return {"full": {"arm": "full"}, "auto": {"rule": "auto"}}.get(value.strip()) or {"list": value}
        if isinstance(value, int | list | tuple):
            return {"list": value}
        if not isinstance(value, dict) or value.get("rule") not in (*get_args(Arm), "list"):
            return value
        rest = {key: inner for key, inner in value.items() if key != "rule"}
        if value["rule"] == "list":
            if rest.get("list", rest.get("layers")) is None:
                raise ValueError("rule: list needs the layers, such as list: 10-17")
            return rest
        if rest.get("arm", value["rule"]) != value["rule"]:
            raise ValueError(f"rule: {value['rule']} and arm: {rest['arm']} contradict each other; keep the rule")
        return rest | {"arm": value["rule"]}

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
        if self.rule is not None:
            self._check_rule()
            return self
        counted = self.count is not None or self.share is not None
        if counted and (self.arm != "random" or named):
            raise ValueError(
                "count and share are for rules (gradient, fisher, warmup, similarity, uniform, and random without a "
                "set); a set's own size decides here: leave them out"
            )
        if self.count is not None and self.share is not None:
            raise ValueError("count and share both say how many layers; keep one of them")
        if not named and self.arm != "full" and not counted:
            raise ValueError(
                f"arm {self.arm!r} needs a set of layers: functions with a map, a preset, or a list; or arm: full"
            )
        if self.map is not None and not self.functions and self.arm != "full":
            raise ValueError("a map is given, but no functions: name them, such as functions: [counting]")
        if self.expand and not self.functions:
            raise ValueError("expand widens the functions' layers; without functions, write the wider list itself")
        return self

    def _check_rule(self) -> None:
        """A rule stands by itself."""
        if self.arm != "function":
            raise ValueError(f"rule {self.rule} chooses the layers; arm: {self.arm} goes with a set. Keep one of them")
        if self.preset is not None or self.layers is not None:
            raise ValueError(f"rule {self.rule} chooses the layers itself; leave the list or preset out")
        if self.expand:
            raise ValueError(f"expand widens the functions' layers; rule {self.rule} takes count or share")
        if self.count is not None and self.share is not None:
            raise ValueError("count and share both say how many layers; keep one of them")
        if self.rule == "auto" and (self.count is not None or self.functions or self.map is not None):
            raise ValueError("rule auto trains all layers and reads no map; it takes share alone, of the rank")
        if bool(self.functions) != (self.map is not None):
            raise ValueError("functions and a map tell what kind of shift the data is: give both or neither")

    @property
    def by_data(self) -> bool:
        """Whether the layers depend on the training rows."""
        return self.rule not in (None, "auto", "uniform")

    def number(self, num_layers: int) -> int:
        """How many layers a rule takes of a model with so many."""
        if self.count is not None:
            return self.count
        return max(1, round((HALF if self.share is None else self.share) * num_layers))


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
    assert not choice.by_data, "vfl.train.choose_layers decides by data"
    if choice.rule == "uniform":
        return evenly_spaced(choice.number(total), total)
    if choice.arm == "full" or choice.rule == "auto":
        return list(range(total))
    if choice.arm == "random" and (choice.count is not None or choice.share is not None):
        return drawn(choice.number(total), total, choice.seed)
    base = _base(choice, model, fmap)
    if choice.arm == "reversed":
        rest = sorted(set(range(total)) - set(base))
        if not rest:
            raise InputError(
                f"arm 'reversed' trains the layers outside the set, but the set holds all {total} layers of {model.id}."
            )
        return rest
    if choice.arm == "random":
        layers = drawn(len(base), total, choice.seed)
        shared = len(set(layers) & set(base))
        logger.info("random layers %s: %d of %d are in the set itself", layer_list(layers), shared, len(layers))
        return layers
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
    fitting = fmap.check_model(**dict(model), allow_other_model=choice.allow_other_model)
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
