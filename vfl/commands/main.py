"""`vfl`: find the function layers of a vision-language model.

Bad input ends with one paragraph and exit code 2; `vfl --debug ...` shows the traceback instead.
"""

import logging
import sys
from typing import Any

import typer
from rich.console import Console

from vfl import __version__
from vfl.commands import (
    arms,
    cache,
    compare,
    estimate,
    evaluate,
    layers,
    locate,
    lora_config,
    measure,
    merge,
    models,
    negatives,
    probes,
    push,
    select,
    serve,
    skip,
    swap,
    train,
)
from vfl.commands.help import Command, examples
from vfl.errors import InputError
from vfl.io.renamed import renamed_flag

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find the layers in which a vision-language model recognises, counts, grounds and reads.",
)
for name, module in {
    "locate": locate,
    "swap": swap,
    "estimate": estimate,
    "compare": compare,
    "layers": layers,
    "train": train,
    "negatives": negatives,
    "arms": arms,
    "lora-config": lora_config,
    "merge": merge,
    "evaluate": evaluate,
    "measure": measure,
    "skip": skip,
    "push": push,
    "serve": serve,
    "models": models,
    "cache": cache,
}.items():
    app.command(name, cls=Command, epilog=examples(module.__doc__, name))(module.command)
app.add_typer(probes.app, name="probes")
app.add_typer(select.app, name="select")


@app.callback(invoke_without_command=True)
def before(
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks and debug messages."),
) -> None:
    """Options before the command."""
    if version:
        typer.echo(f"vfl {__version__}")
        raise typer.Exit
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s: %(message)s")


def command_line() -> Any:
    """All commands. The options that install the shell's completion work, and take no place in the help."""
    command = typer.main.get_command(app)
    for parameter in command.params:
        if parameter.name in ("install_completion", "show_completion"):
            parameter.hidden = True  # type: ignore[attr-defined]
    return command


def run() -> None:
    """Entry point of the `vfl` command."""
    arguments = sys.argv[1:]
    try:
        if old := renamed_flag(arguments):
            raise InputError(f"{old[0]} was an option of vfl 0.1; write {old[1]}.")
        if arguments[:2] == ["measure", "compare"] and arguments[2:] and not arguments[2].startswith("-"):
            arguments = arguments[1:]  # several arguments are runs to compare; alone, it is a model's folder
        command_line()(arguments, prog_name="vfl")
    except InputError as error:
        if "--debug" in arguments:
            raise
        Console(stderr=True).print(f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:  # of commands that write a file or two; those with a folder say more
        from vfl.io.disk import is_full

        if "--debug" in arguments or not is_full(error):
            raise
        message = (
            f"Error: The disk{f' of {error.filename}' if error.filename else ''} is full. Make room and try again."
        )
        Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except (RuntimeError, MemoryError) as error:
        from vfl.engine.memory import is_out_of_memory, not_enough_memory

        if "--debug" in arguments or not is_out_of_memory(error):
            raise
        message = f"Error: {not_enough_memory(error)}"
        Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
