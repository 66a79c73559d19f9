"""The command reference, from the commands themselves."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import typer
import typer.main
from pages_from_code.sources import cell

from vfl.commands.help import groups_of
from vfl.commands.main import app


def page() -> str:
    """Every command with its arguments and options."""
    parts = [
        "# Commands",
        "Options before the command: `vfl --version`, `vfl --debug COMMAND` (tracebacks and debug messages). Bad input "
        "ends with one paragraph that says what to do, and exit code 2; Ctrl-C with 130. What is marked as required "
        "may stand in the file of `--config` instead. `vfl --install-completion` lets the shell complete names.",
    ]
    for name, command in commands():
        parts.append(f"## `{name}`\n\n{escaped(command.help or '')}")
        parts.append(f"```console\n{command.epilog}\n```")
        rows = []
        for group, records in groups_of(command, typer.Context(command)):
            rows += [f"| **{group}** | |"] if group != "Arguments" else []
            rows += [row(written, text) for written, text in records if not written.endswith("--help")]
        parts.append("\n".join(["| argument or option | meaning |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def commands() -> Iterator[tuple[str, Any]]:
    """Full names ("vfl select score") and commands, in the order of `vfl --help`."""

    def below(name: str, group: Any) -> Iterator[tuple[str, Any]]:
        for key, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from below(f"{name} {key}", command)
            else:
                yield f"{name} {key}", command

    yield from below("vfl", typer.main.get_command(app))


def row(written: str, text: str) -> str:
    """One argument or option as a row, in the words of `--help`."""
    return f"| `{cell(written)}` | {escaped(cell(text))} |"


def help_of_options(prefix: str) -> dict[str, str]:
    """What options say of themselves, by name: those of the commands that begin so, else what most commands say."""
    own: dict[str, str] = {}
    everywhere: dict[str, Counter[str]] = {}
    for name, command in commands():
        for parameter in command.params:
            text = getattr(parameter, "help", None)
            if text:
                everywhere.setdefault(parameter.name, Counter())[text] += 1
                if name.startswith(prefix):
                    own.setdefault(parameter.name, text)
    return {name: texts.most_common(1)[0][0] for name, texts in everywhere.items()} | own


def escaped(text: str) -> str:
    """Prose with signs that Markdown or HTML would read as its own."""
    parts = text.split("`")  # what stands between two of them is code
    plain = [part.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_") for part in parts]
    return "`".join(
        code if number % 2 else prose for number, (prose, code) in enumerate(zip(plain, parts, strict=True))
    )
