"""What the commands for launchers share: their options, named after settings, and how they end."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel

from vfl.engine.memory import is_out_of_memory, not_enough_memory
from vfl.errors import InputError
from vfl.io.config import read_config
from vfl.launching.ranks import LostRankError
from vfl.launching.said_once import say_once

M = TypeVar("M", bound=BaseModel)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raised rather than printed, which every process would do."""
        raise InputError(f"{message}. See `python -m {self.prog} --help`.")


def settings_parser(prog: str, description: str | None, kind: type[BaseModel], nested: Collection[str]) -> _Parser:
    """A parser of `MODEL [KEY=VALUE]... [--config FILE] [--set KEY=VALUE]...` and an option for each setting.

    Args:
        nested: settings without an option of their own, which are given as key=value.
    """
    parser = _Parser(prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", metavar="key=value", help="such as pairs=200; a model stands first")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="the same as key=value")
    parser.add_argument("--overwrite", action="store_true", help="replace another run's results")
    for name in _named(kind, nested):
        flag = {"action": "store_const", "const": True} if kind.model_fields[name].annotation is bool else {}
        help_text = (kind.model_fields[name].description or "").replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, help=help_text, **flag)  # type: ignore[arg-type]
    # DeepSpeed's launcher adds it; the rank is in the environment too.
    parser.add_argument("--local_rank", "--local-rank", help=argparse.SUPPRESS)
    return parser


def settings_of(kind: type[M], options: Any, nested: Collection[str], more: Sequence[str] = ()) -> M:
    """The settings of parsed options, with `more` as key=value.

    Raises:
        InputError: for settings that can't be used.
    """
    words = list(options.settings)
    model = words.pop(0) if words and "=" not in words[0] else None
    flags = {"model": model, **{name: getattr(options, name) for name in _named(kind, nested)}}
    return read_config(kind, options.config, flags, [*words, *more, *options.set])


def ended(work: Callable[[bool], None], *, interrupted: str, lost: str) -> int:
    """The exit code of `work`: 0 done, 1 when another process was lost, 2 for bad input, 130 after Ctrl-C.

    Args:
        work: is told whether this is the first process.
        interrupted: what to say after Ctrl-C.
        lost: what to say besides when another process was lost.
    """
    first = int(os.environ.get("RANK", "0")) == 0
    logging.basicConfig(level=logging.WARNING if first else logging.ERROR, format="%(levelname)s: %(message)s")
    try:
        work(first)
    except InputError as error:
        say_once(f"Error: {error}")
        return 2
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        say_once(f"Error: {not_enough_memory(error)}")
        return 2
    except LostRankError as error:
        say_once(f"Error: {error} {lost}")
        return 1
    except KeyboardInterrupt:
        if first:
            print(interrupted, file=sys.stderr)
        return 130
    return 0


def _named(kind: type[BaseModel], nested: Collection[str]) -> list[str]:
    return [name for name in kind.model_fields if name != "model" and name not in nested]
