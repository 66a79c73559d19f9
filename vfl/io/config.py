"""Configuration files: YAML, overridden key by key, validated by a pydantic model; an unknown key is an error."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from vfl.errors import InputError

M = TypeVar("M", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML whose numbers are those of YAML 1.2: 2e-4 is one. PyYAML reads it as text, a trap for learning rates."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_config(kind: type[M], file: Path | None, overrides: Mapping[str, Any]) -> M:
    """A validated configuration from a YAML file and overrides; overrides that are None are not set.

    Raises:
        InputError: for an unreadable file, an unknown key or a value of the wrong kind: names the key, what was given
            and what is allowed.
    """
    values = {} if file is None else read_yaml(file)
    values |= {key: value for key, value in overrides.items() if value is not None}
    return validated(kind, values, source=str(file) if file else "settings")


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


def validated(kind: type[M], values: Mapping[str, Any], *, source: str) -> M:
    """`values` as a `kind`, or an InputError that names every wrong key."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(f"{source}: " + "; ".join(_describe(kind, one) for one in error.errors())) from error


def _describe(kind: type[BaseModel], error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r} (known: {', '.join(_fields(kind, error['loc'][:-1]))})"
    if error["type"] == "missing":
        return f"{key!r} is missing"
    return f"{key!r} is {error['input']!r}: {error['msg'].removeprefix('Value error, ')}"


def _fields(kind: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Field names at a place inside nested models."""
    for part in path:
        field = kind.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        kind = inner
    return list(kind.model_fields)
