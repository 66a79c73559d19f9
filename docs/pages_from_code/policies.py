"""The catalogue of selection policies: the text and the settings of the module that holds them."""

import inspect
from typing import get_args

from pages_from_code.settings import default, kind
from pages_from_code.sources import cell

from vfl.select.choose import balance, policies


def names() -> tuple[str, ...]:
    """Every policy that there is."""
    return tuple(get_args(policies.Policy))


def page() -> str:
    """The whole page."""
    rows = ["| setting | value | default | meaning |", "|---|---|---|---|"]
    for name, field in policies.PolicyConfig.model_fields.items():
        rows.append(f"| `{name}` | {cell(kind(field))} | `{cell(default(field))}` | {cell(field.description or '')} |")
    return (
        "\n\n".join(
            [
                "# Policies",
                "    vfl select filter scores --policy NAME --budget 20% --out subset",
                "What a score, a class and a budget are: [selection](../selection.md). Policies: "
                + ", ".join(f"`{name}`" for name in names())
                + ".",
                inspect.getdoc(policies) or "",
                "## Balanced",
                inspect.getdoc(balance) or "",
                "## Settings",
                "\n".join(rows),
            ]
        )
        + "\n"
    )
