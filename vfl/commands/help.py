"""What `--help` shows of a command: groups of options, what is required, defaults in one manner, and examples.

Plain text, as typer writes it without rich: a page that can be piped and searched.
"""

import re
from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand

REQUIRED, GENERAL = "required", "General"
GROUPS = ("Arguments", "Options", "Choice", "Pairs", "Data", "Model", "Results", GENERAL)
"""In this order."""


class Command(TyperCommand):
    """A command whose help has its options in groups, and its examples line by line."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and each group of options as a section."""
        for name, rows in groups_of(self, ctx):
            with formatter.section(name):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def groups_of(command: Any, context: Any) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The groups of a command's arguments and options: their name, and (how it is written, what it means) of each."""
    groups: dict[str, list[tuple[str, str]]] = {}
    required = getattr(command.callback, "required", ())
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None:
            continue
        written, text = record
        written = re.sub(r" <list\[.*\]>$", "...", written)
        text = re.sub(r"\[default: \((.*)\)\]$", r"[default: \1]", text)  # typer's brackets around a text
        if parameter.name in required:
            text += f"  [{REQUIRED}]"
        groups.setdefault(_group(parameter), []).append((written, text))
    for name in sorted(groups, key=GROUPS.index):
        yield name, groups[name]


def _group(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return "Arguments"
    if parameter.name == "help":
        return GENERAL
    return getattr(parameter, "rich_help_panel", None) or "Options"


def examples(documentation: str | None, command: str) -> str:
    """The lines of a module's documentation that run a command: those that begin with `vfl COMMAND `."""
    lines = (documentation or "").splitlines()
    return "\n".join(line for line in lines if f"{line} ".startswith(f"vfl {command} "))
