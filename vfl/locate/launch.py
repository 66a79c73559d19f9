"""The command to locate functions for launchers; `vfl locate` is the same in one process.

torchrun --nproc-per-node 8 --module vfl.locate.launch MODEL --out DIR [--pairs 200 ...] [--resume] [--overwrite]
accelerate launch --num_processes 8 --module vfl.locate.launch --config locate.yaml
deepspeed --num_gpus 8 --module vfl.locate.launch MODEL out=DIR [key=value ...]

Every process loads the model on a GPU of its own and takes pairs that none has asked, one after another. The results
are those of one process. A run that was stopped goes on with --resume, by any number of processes.
"""

import sys
from collections.abc import Sequence
from functools import partial

from vfl.launching.command import ended, settings_of, settings_parser
from vfl.launching.ranks import join, leave
from vfl.locate.config import LocateConfig
from vfl.locate.run import run

NESTED = ("choice", "layers")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code, as `ended` says."""
    return ended(
        partial(_locate, arguments),
        interrupted="Interrupted. What was finished is kept; --resume goes on from there.",
        lost="What was finished is kept; go on with the same command and --resume.",
    )


def read(arguments: Sequence[str] | None) -> tuple[LocateConfig, dict[str, bool]]:
    """The settings, and whether to resume and to overwrite."""
    parser = settings_parser("vfl.locate.launch", __doc__, LocateConfig, NESTED)
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--layers", action="append", default=[], metavar="FUNCTION=LAYERS", help="your own layers")
    options = parser.parse_intermixed_args(arguments)
    config = settings_of(LocateConfig, options, NESTED, [f"layers.{text}" for text in options.layers])
    return config, {"resume": options.resume, "overwrite": options.overwrite}


def _locate(arguments: Sequence[str] | None, first: bool) -> None:
    config, how = read(arguments)
    fmap = run(config, overwrite=how["overwrite"], resume=how["resume"], progress=first, ranks=join())
    if first:
        print(fmap)
        for name, entry in fmap.functions.items():
            for warning in entry.warnings:
                print(f"Warning: {name}: {warning}")
            if entry.screen:
                print(f"Screen: {name}: {entry.screen.in_words()}.")
            if entry.random_weights:
                print(f"{name}: {entry.random_weights.in_words()}.")
        print(f"Report: {config.out / 'report.html'}")


if __name__ == "__main__":
    code = main()
    leave()
    sys.exit(code)
