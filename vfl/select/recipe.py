"""The recipe of `vfl select run`: scoring and filtering in one YAML file, overridden by flags and key=value."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from vfl.errors import InputError
from vfl.io.config import read_yaml, set_dotted, validated


class SelectRecipe(BaseModel):
    """`score` and `filter` hold the settings of these commands, without the folders, which stand here."""

    model_config = ConfigDict(extra="forbid")

    out: Path = Field(description="folder for the subset and its report")
    scores: Path | None = Field(default=None, description="folder for the scores; default: beside `out`, OUT-scores")
    score: dict[str, Any] = Field(default_factory=dict)
    filter: dict[str, Any] = Field(default_factory=dict)

    @property
    def scores_folder(self) -> Path:
        """Where the scores go."""
        out = self.out.absolute()
        return self.scores or out.with_name(f"{out.name}-scores")


def read_select_recipe(
    file: Path | None,
    overrides: Sequence[str],
    *,
    top: Mapping[str, Any],
    score: Mapping[str, Any],
    filter: Mapping[str, Any],
) -> SelectRecipe:
    """A recipe from a file, then flags (`top`, `score`, `filter`; those that are None are not given), then overrides.

    Raises:
        InputError: names the wrong key, or a folder that is set twice.
    """
    values = {} if file is None else read_yaml(file)
    values |= {key: value for key, value in top.items() if value is not None}
    for name, flags in (("score", score), ("filter", filter)):
        inner = values.get(name) or {}
        if not isinstance(inner, dict):
            raise InputError(f"{file}: {name} is {inner!r}; expected its settings as keys and values.")
        values[name] = inner | {key: value for key, value in flags.items() if value is not None}
    for override in overrides:
        set_dotted(values, override)
    for name, above in (("score", ("out",)), ("filter", ("out", "scores"))):
        if twice := [key for key in above if key in values[name]]:
            raise InputError(f"{name}.{twice[0]} is set by `out` and `scores` at the top of the recipe; leave it out.")
    return validated(SelectRecipe, values, source=str(file or "settings"))
