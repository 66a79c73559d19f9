"""The arms of a study: a recipe's settings for each point of its axes, or for each entry of its list."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from typing import Any, get_args

from vfl.errors import InputError
from vfl.functionmap import FunctionMap
from vfl.io.config import validated
from vfl.train.layers.choice import Arm as SetArm
from vfl.train.layers.choice import LayerChoice, Rule
from vfl.train.layers.presets import preset
from vfl.train.recipe import Recipe
from vfl.train.study_config import ArmConfig, StudyConfig

FULL = "full"
STANDARD = get_args(SetArm)  # function, full, reversed, random
WORDS = (*STANDARD, *get_args(Rule))
SOURCES = ("functions", "preset", "list", "layers", "count", "share")  # what makes a choice stand alone
# What must be equal in all arms, or has a setting of its own: (the key, what to do instead).
EQUAL = {
    "out": "give --out",
    "seed": "set study.seeds",
    "study": "write it once",
    "model": "arms share their model",
    "method": "arms share their method",
    "evaluation": "arms are asked the same",
    "data.train": "arms share their data",
    "layers": "write it as the arm's layers",
    "data.replay": "write it as the arm's replay: on or off",
    "trainer.learning_rate": "set study.learning_rates",
    "trainer.max_steps": "arms take equally many steps",
    "trainer.num_train_epochs": "arms take equally many steps",
    "packing": "arms take equal steps",
    "trainer.per_device_train_batch_size": "arms take equal steps",
    "trainer.gradient_accumulation_steps": "arms take equal steps",
}


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        name: for a person.
        values: of its recipe; without seed, learning rate and folder, which are each run's.
        full: the arm of all layers that it is compared with, or None.
    """

    name: str
    values: dict[str, Any]
    full: str | None = None


def arms_of(base: Recipe, names: Sequence[str] = ()) -> list[Arm]:
    """The arms of a recipe and its study.

    Args:
        base: the recipe; without a study, its function's layers are compared with all, all others and random ones.
        names: only these: of the list's arms, or of the axis of layers, where words such as `gradient` need no entry.

    Raises:
        InputError: for names that there are not, and arms that can't be compared.
    """
    study = base.study or StudyConfig()
    configs = _listed_arms(study, names) if study.arms else _product(study, names)
    values = {name: _values(name, config, base) for name, config in configs.items()}
    _refuse_unequal(values, base)
    return [Arm(name, inner, _full(name, values)) for name, inner in values.items()]


def _listed_arms(study: StudyConfig, names: Sequence[str]) -> dict[str, ArmConfig]:
    if unknown := [name for name in names if name not in study.arms]:
        raise InputError(f"There is no arm {', '.join(unknown)}; study.arms has {', '.join(study.arms)}.")
    return {name: config for name, config in study.arms.items() if not names or name in names}


def _product(study: StudyConfig, names: Sequence[str]) -> dict[str, ArmConfig]:
    """Every choice of layers with every kind of modules, with and without replay; a name says what differs."""
    chosen = names or tuple(study.layers) or STANDARD
    if unknown := [name for name in chosen if study.layers.get(name) is None and name not in WORDS]:
        known = dict.fromkeys([*(name for name, value in study.layers.items() if value is not None), *WORDS])
        raise InputError(f"There is no arm {', '.join(unknown)}; choose from {', '.join(known)}, or give study.layers.")
    arms = {}
    for name, modules, replay in product(chosen, study.modules or (None,), study.replay or (None,)):
        parts = [name]
        # Named alike whatever else the axis holds, so that a study whose axes grow keeps what it has.
        parts += [modules] if modules not in (None, "all") else []
        parts += ["replay"] if replay == "on" else []
        written = study.layers.get(name)
        layers = {"rule": name} if written is None else written
        arms[", ".join(parts)] = ArmConfig(layers=layers, replay=replay, modules=modules)
    return arms


def _values(name: str, config: ArmConfig, base: Recipe) -> dict[str, Any]:
    """The arm's recipe, validated."""
    values: dict[str, Any] = base.model_dump(mode="json", by_alias=True, exclude={"study"})
    layers = _layers(name, config.layers, base.layers)
    if config.modules is not None:
        if isinstance(layers, Mapping) and layers.get("modules", "all") != base.layers.modules:
            raise InputError(f"Arm {name!r} names modules twice: leave `modules` out of its layers, or the axis out.")
        layers = {**_as_keys(layers), "modules": config.modules}
    values["layers"] = layers
    if config.replay == "on" and base.data.replay is None:
        raise InputError(
            f"Arm {name!r} is to mix old rows in, but the recipe says none. Give its data.replay, such as "
            "data.replay.probes=standard."
        )
    if config.replay == "off":
        values["data"]["replay"] = None
    for key, value in config.set.items():
        for fixed, instead in EQUAL.items():
            if key == fixed or key.startswith(f"{fixed}.") or fixed.startswith(f"{key}."):
                raise InputError(f"Arm {name!r} can't set {key}: {instead}.")
        _put(values, key, value)
    recipe = validated(Recipe, values, source=f"arm {name!r}")
    return recipe.model_dump(mode="json", by_alias=True, exclude={"study"})


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key."""
    *path, last = key.split(".")
    for part in path:
        if not isinstance(values.get(part), dict):
            values[part] = {}
        values = values[part]
    values[last] = deepcopy(value)


def _layers(name: str, written: Any, own: LayerChoice) -> Any:
    """An arm's `layers`, where it stands on the recipe's own filled up from there."""
    kept = own.model_dump(mode="json", by_alias=True)
    if written is None:
        return kept
    if isinstance(written, str) and written.strip() in WORDS:
        written = {"rule": written.strip()}
    if not isinstance(written, Mapping):  # a list of layers
        return {"list": written, "modules": kept["modules"]}
    rule = written.get("rule", written.get("arm"))
    if any(written.get(key) is not None for key in SOURCES):
        return dict(written)
    if rule in (FULL, "auto"):
        return {"modules": kept["modules"], **written}
    if rule in get_args(Rule):
        size = _size(own)
        count = {} if size is None else {"count": size}
        return {"modules": kept["modules"], "rows": kept["rows"], **count, **written}
    if not (own.functions or own.preset or own.layers is not None) or own.rule is not None:
        raise InputError(
            f"Arm {name!r} stands on the recipe's own set of layers, and the recipe has none: name functions with a "
            "map, a preset or a list there, or in the arm."
        )
    return {**kept, **({"arm": rule} if rule else {}), **{k: v for k, v in written.items() if k not in ("rule", "arm")}}


def _as_keys(layers: Any) -> dict[str, Any]:
    return dict(layers) if isinstance(layers, Mapping) else {"list": layers}


def _size(own: LayerChoice) -> int | None:
    """How many layers the recipe's own set has, so that rules are compared at equally many; None without a set."""
    if own.layers is not None:
        return len(own.layers)
    if own.preset is not None:
        return len(preset(own.preset).layers)
    if own.functions and own.map is not None and own.rule is None:
        return len(FunctionMap.load(own.map).layers_of(own.functions, expand=own.expand))
    return own.count


def _refuse_unequal(values: Mapping[str, dict[str, Any]], base: Recipe) -> None:
    """Raises InputError where arms would not take equally many steps, or would be chosen by what judges them."""
    replayed = {name: inner["data"]["replay"] is not None for name, inner in values.items()}
    steps = base.trainer.get("max_steps", -1)
    if len(set(replayed.values())) > 1 and not (isinstance(steps, int) and steps > 0):
        raise InputError(
            "Old rows make an epoch longer, so arms with replay and without would not take equally many steps. Say how "
            "many: trainer.max_steps=N (`vfl train RECIPE --check` says how many its epochs are)."
        )
    if base.evaluation.patience is not None:
        raise InputError("With evaluation.patience arms would not take equally many steps. Leave it out.")
    if base.evaluation.best not in (None, "loss"):
        raise InputError(
            f"evaluation.best: {base.evaluation.best} takes each arm's best step by the answers that judge it. Use "
            "best: loss, of held-out rows, or leave it out."
        )


def _full(name: str, values: Mapping[str, Any]) -> str | None:
    """The arm of all layers with the same modules and replay, or without them."""
    _, comma, rest = name.partition(",")
    names = [f"{FULL}{comma}{rest}", FULL]
    return next((full for full in names if full in values and full != name), None)
