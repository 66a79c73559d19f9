"""The catalogue of selection policies: the text and the settings of the module that holds them."""

import inspect
from typing import get_args

from pages_from_code.settings import default, kind
from pages_from_code.sources import cell
from pydantic import BaseModel

from vfl.select.choose import balance, ccs, coincide, policies, prism, semdedup, states, vig
from vfl.select.choose.filtering import ChoiceConfig

EXPLAINED = {
    "Balanced": (balance, "balance"),
    "COINCIDE": (coincide, "coincide"),
    "CCS": (ccs, "ccs"),
    "PRISM": (prism, None),
    "SemDeDup": (semdedup, "semdedup"),
    "VIG": (vig, None),
    "States as features": (states, None),
}
"""Sections on single policies: the module, and the settings that are its own."""


def names() -> tuple[str, ...]:
    """Every policy that there is."""
    return tuple(get_args(policies.Policy))


def page() -> str:
    """The whole page."""
    explained = []
    for title, (module, group) in EXPLAINED.items():
        explained += [f"## {title}", inspect.getdoc(module) or ""]
        if group is not None:
            explained.append(_table(type(ChoiceConfig.model_fields[group].default), f"{group}."))
    return (
        "\n\n".join(
            [
                "# Policies",
                "    vfl select filter scores --policy NAME --budget 20% --out subset",
                "What a score, a class and a budget are: [selection](../selection.md). Policies: "
                + ", ".join(f"`{name}`" for name in names())
                + ".",
                inspect.getdoc(policies) or "",
                *explained,
                "## Settings",
                _table(policies.PolicyConfig),
            ]
        )
        + "\n"
    )


def _table(model: type[BaseModel], prefix: str = "") -> str:
    rows = ["| setting | value | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        shown, meaning = cell(default(field)), cell(field.description or "")
        rows.append(f"| `{prefix}{name}` | {cell(kind(field))} | `{shown}` | {meaning} |")
    return "\n".join(rows)
