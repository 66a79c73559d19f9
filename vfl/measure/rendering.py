"""Jinja templates that turn a data set's columns into a question and its answer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from string import ascii_uppercase
from typing import Any

from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import SandboxedEnvironment

from vfl.errors import InputError

ITEM = "item"


def check_template(source: str) -> set[str]:
    """The names that a template reads.

    Raises:
        jinja2.TemplateError: when it is none.
    """
    tree = _environment().parse(source)
    _environment().from_string(source)  # unknown filters are only found here
    return meta.find_undeclared_variables(tree)


def render(source: str, row: Mapping[str, Any], what: str) -> str:
    """A template over a row, without the spaces around it.

    Raises:
        InputError: where the row does not fit the template.
    """
    try:
        return _environment().from_string(source).render(row).strip()
    except (TemplateError, TypeError, ValueError, LookupError) as error:
        raise InputError(f"{what} can't be made from the row: {error}") from error


def letter(place: int) -> str:
    """0 is A, 1 is B."""
    return ascii_uppercase[place]


def most_common(answers: Sequence[Any]) -> Any:
    """The answer that most people gave, the earliest among equals."""
    return Counter(answers).most_common(1)[0][0]


@cache
def _environment() -> SandboxedEnvironment:
    # Plain text for a model, so nothing is escaped; sandboxed, since a file may come from somebody else.
    environment = SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"letter": letter, "most_common": most_common}
    return environment
