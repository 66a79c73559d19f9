"""Settings: YAML, overridden by flags and by `--set key=value`, validated by a pydantic model.

All commands read theirs here. An unknown key is an error at every level, and says which key may be meant.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from vfl.errors import InputError
from vfl.io.did_you_mean import did_you_mean
from vfl.io.renamed import renamed_key

M = TypeVar("M", bound=BaseModel)
_PLAIN = ("system_prompt",)  # texts, whatever they begin with


class _Loader(yaml.SafeLoader):
    """YAML whose numbers are those of YAML 1.2: 2e-4 is one. PyYAML reads it as text, a trap for learning rates.

    A key that stands twice is an error; PyYAML takes the last one without a word.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """The keys and values of one mapping."""
        seen = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice; leave one out", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_config(kind: type[M], file: Path | None, flags: Mapping[str, Any], sets: Sequence[str] = ()) -> M:
    """Validated settings: of a YAML file, under flags (those that are None are not given), under `key=value` overrides.

    Raises:
        InputError: for an unreadable file, an unknown key or a value of the wrong kind: names the key, what was given
            and what is allowed.
    """
    return validated(kind, merged(file, flags, sets), source=str(file) if file else "settings")


def merged(file: Path | None, flags: Mapping[str, Any], sets: Sequence[str] = ()) -> dict[str, Any]:
    """The values of `read_config`, not validated yet."""
    values = {} if file is None else read_yaml(file)
    values |= {key: deepcopy(value) for key, value in flags.items() if value is not None}
    for override in sets:
        set_dotted(values, override)
    return values


def recipe_and_overrides(
    recipe: str | None, overrides: Sequence[str], config: Path | None, sets: Sequence[str]
) -> tuple[Path, list[str]]:
    """The recipe of a training command and what is set over it: `[RECIPE] [KEY=VALUE]... [--config FILE] [--set ...]`.

    Raises:
        InputError: for two recipes, or none.
    """
    if config is None:
        if recipe is None:
            raise InputError("No recipe was named. Give its YAML file, as the first argument or as --config.")
        return Path(recipe), [*overrides, *sets]
    if recipe is None:
        return config, list(sets)
    if "=" not in recipe:
        raise InputError(f"Two recipes were named, {recipe} and --config {config}. Leave one out.")
    return config, [recipe, *overrides, *sets]


def read_yaml(file: Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        InputError: when it can't be read, is not YAML, or holds something else.
    """
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), _Loader) or {}
    except OSError as error:
        raise InputError(f"The configuration {file} can't be read: {error.strerror}. Check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{file} holds a {type(values).__name__}; expected keys and values.")
    return values


def set_dotted(values: dict[str, Any], override: str) -> None:
    """Set `layers.arm=random` in nested values; what stands right of the first "=" is YAML.

    Raises:
        InputError: when it is not of that form, or a key on the way holds something other than keys.
    """
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"{override!r} is no setting; write key=value, such as trainer.max_steps=100.")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise InputError(f"The value in {override!r} is not YAML: {' '.join(str(error).split())}") from error
    *path, last = key.split(".")
    for part in path:
        inner = values.setdefault(part, {})
        if inner is None:
            inner = values[part] = {}
        if not isinstance(inner, dict):
            raise InputError(f"{override!r} sets a key inside {part!r}, which is {inner!r}; give {part} as keys first.")
        values = inner
    values[last] = value


@dataclass(frozen=True)
class WrongKey:
    """What is wrong with a setting.

    Attributes:
        key: its dotted key; empty where settings don't go together.
        what: what is said behind its name, or all there is to say where `key` is empty or not known.
        missing: it has to be given.
        unknown: there is no such key.
    """

    key: str
    what: str
    missing: bool = False
    unknown: bool = False

    def text(self, name: str | None = None) -> str:
        """In words; `name`: how a person writes the setting, if not by its key."""
        return self.what if self.unknown or not self.key else f"{name or repr(self.key)} {self.what}"


class WrongSettings(InputError):
    """Settings that can't be used, with all that is wrong with them."""

    def __init__(self, source: str, wrong: Sequence[WrongKey]) -> None:
        super().__init__(f"{source}: " + "; ".join(key.text() for key in wrong))
        self.source, self.wrong = source, tuple(wrong)

    def written(self, names: Mapping[str, str], given: Collection[str]) -> str:
        """The same for a person at a command line.

        Args:
            names: how settings are written there, such as out: --out.
            given: those that were; what is wrong with others is the file's, or of --set.
        """
        here = [key for key in self.wrong if key.key in names and (key.missing or key.key in given)]
        other = [key.text() for key in self.wrong if key not in here]
        texts = [key.text(names[key.key]) for key in here]
        return "; ".join([*texts, *([f"{self.source}: {'; '.join(other)}"] if other else [])])


def validated(kind: type[M], values: Mapping[str, Any], *, source: str) -> M:
    """`values` as a `kind`, or an InputError that names every wrong key; addresses on the hub (hf://) are fetched."""
    try:
        return kind.model_validate(_here(dict(values)))
    except ValidationError as error:
        raise WrongSettings(source, [_wrong(kind, wrong) for wrong in error.errors()]) from error


def _here(values: dict[str, Any]) -> dict[str, Any]:
    """The values with every address on the hub fetched, but for keys that are no places to read."""
    if "hf:/" not in str(values):
        return values
    from vfl.io.hub import is_address  # takes a second

    if is_address(values.get("out")):
        raise InputError(f"out is {str(values['out'])!r}: results are written here, and `vfl push` takes them up.")
    if is_address(values.get("model")):
        raise InputError(f"model is {str(values['model'])!r}: write ORG/NAME, and its revision as `revision`.")
    return {key: value if key in _PLAIN else _found(key, value) for key, value in values.items()}


def _found(key: str, value: Any) -> Any:
    """A setting with its addresses fetched; rows that are read where they lie are only pinned to their commit."""
    from vfl.io.hub import with_fetched
    from vfl.io.hub_in_place import with_pinned

    if key == "data" and isinstance(value, Mapping) and value.get("streaming") and "train" in value:
        rest = {name: inner for name, inner in value.items() if name != "train"}
        return {**with_fetched(rest), "train": with_pinned(value["train"])}
    return with_fetched(value)


def unknown_key(key: str, known: Sequence[str], path: str = "") -> str:
    """What to say of a key that is not known.

    Args:
        key: as it was written.
        known: the keys that there are at its place.
        path: dotted keys to that place, with a dot at the end.
    """
    if now := renamed_key(key, list(known)):
        return f"{path + key!r} was a spelling of vfl 0.1; write {now}"
    hint = did_you_mean(key, known)
    return f"unknown key {path + key!r}{', ' + hint if hint else ''} (known: {', '.join(known)})"


def _wrong(kind: type[BaseModel], error: Any) -> WrongKey:
    *path, last = error["loc"] or ("",)
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return WrongKey(
            key, unknown_key(str(last), known_keys(kind, path), "".join(f"{part}." for part in path)), unknown=True
        )
    if error["type"] == "missing":
        return WrongKey(key, "is missing", missing=True)
    message = error["msg"].removeprefix("Value error, ")
    return WrongKey(key, f"is {error['input']!r}: {message}" if key else message)


def known_keys(kind: type[BaseModel], path: Sequence[Any] = ()) -> list[str]:
    """The keys that a place inside nested settings knows; parts of the path may be names in a mapping, or numbers."""
    kinds = [kind]
    for part in path:
        fields = [field for own in kinds for name, field in _fields(own) if name == str(part)]
        if fields:
            kinds = [inner for field in fields for inner in _models(field.annotation)]
    return list(dict.fromkeys(name for own in kinds for name, _ in _fields(own)))


def _fields(kind: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    for name, field in kind.model_fields.items():
        yield field.alias or name, field


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation: `dict[str, DataSet] | None` -> DataSet."""
    if isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
