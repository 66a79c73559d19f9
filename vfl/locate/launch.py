"""The command to locate functions for launchers; `vfl locate` is the same in one process.

torchrun --nproc-per-node 8 --module vfl.locate.launch MODEL --out DIR [--pairs 200 ...] [--resume] [--overwrite]
accelerate launch --num_processes 8 --module vfl.locate.launch --config locate.yaml
deepspeed --num_gpus 8 --module vfl.locate.launch MODEL out=DIR [key=value ...]

Every process loads the model on a GPU of its own and takes pairs that none has asked, one after another. The results
are those of one process. A run that was stopped goes on with --resume, by any number of processes.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from vfl.engine.memory import is_out_of_memory, not_enough_memory
from vfl.errors import InputError
from vfl.io.config import read_config
from vfl.launching.ranks import LostRankError, join, leave
from vfl.launching.said_once import say_once
from vfl.locate.config import LocateConfig
from vfl.locate.run import run


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raised rather than printed, which every process would do."""
        raise InputError(f"{message}. See `python -m {self.prog} --help`.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 when another process was lost, 2 for bad input, 130 after Ctrl-C."""
    first = int(os.environ.get("RANK", "0")) == 0
    logging.basicConfig(level=logging.WARNING if first else logging.ERROR, format="%(levelname)s: %(message)s")
    try:
        options = _parser().parse_intermixed_args(arguments)
        config = _config(options)
        fmap = run(config, overwrite=options.overwrite, resume=options.resume, progress=first, ranks=join())
    except InputError as error:
        say_once(f"Error: {error}")
        return 2
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        say_once(f"Error: {not_enough_memory(error)}")
        return 2
    except LostRankError as error:
        say_once(f"Error: {error}")
        return 1
    except KeyboardInterrupt:
        if first:
            print("Interrupted. What was finished is kept; --resume goes on from there.", file=sys.stderr)
        return 130
    if first:
        print(fmap)
        for name, entry in fmap.functions.items():
            for warning in entry.warnings:
                print(f"Warning: {name}: {warning}")
        print(f"Report: {config.out / 'report.html'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    """Options are named like those of `vfl locate`, each after a setting."""
    parser = _Parser(
        prog="vfl.locate.launch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="such as pairs=200; a model stands first")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="the same as key=value")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--overwrite", action="store_true", help="replace another run's results")
    parser.add_argument("--layers", action="append", default=[], metavar="FUNCTION=LAYERS", help="your own layers")
    for name in _named():
        kind = {"action": "store_const", "const": True} if LocateConfig.model_fields[name].annotation is bool else {}
        description = (LocateConfig.model_fields[name].description or "").replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, help=description, **kind)  # type: ignore[arg-type]
    # DeepSpeed's launcher adds it; the rank is in the environment too.
    parser.add_argument("--local_rank", "--local-rank", help=argparse.SUPPRESS)
    return parser


def _named() -> list[str]:
    """The settings with an option of their own; the others are given as key=value."""
    return [name for name in LocateConfig.model_fields if name not in ("model", "choice", "layers")]


def _config(options: argparse.Namespace) -> LocateConfig:
    words = list(options.settings)
    model = words.pop(0) if words and "=" not in words[0] else None
    own_layers = [f"layers.{text}" for text in options.layers]
    flags = {"model": model, **{name: getattr(options, name) for name in _named()}}
    return read_config(LocateConfig, options.config, flags, [*words, *own_layers, *options.set])


if __name__ == "__main__":
    code = main()
    leave()
    sys.exit(code)
