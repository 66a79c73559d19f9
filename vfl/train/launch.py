"""The training command for launchers; `vfl train` is the same in one process.

torchrun --nproc-per-node 8 --module vfl.train.launch recipe.yaml [key=value ...] [--resume] [--check] [--overwrite]
accelerate launch --module vfl.train.launch recipe.yaml
deepspeed --module vfl.train.launch recipe.yaml

The recipe's `method` decides between SFT and DPO.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import torch
from torch.distributed.distributed_c10d import _get_default_store  # there is no public way to the group's store

from vfl.errors import InputError
from vfl.io.config import recipe_and_overrides
from vfl.train.run import train

PATIENCE = timedelta(seconds=30)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 for bad input, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="vfl.train.launch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", help="YAML file; see recipes/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the recipe, such as layers=full")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the recipe, in place of the first argument")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="the same as key=value")
    parser.add_argument("--resume", action="store_true", help="go on from the last complete checkpoint")
    parser.add_argument("--check", action="store_true", help="stop after the preflight")
    parser.add_argument("--overwrite", action="store_true", help="replace another run's results")
    # DeepSpeed's launcher adds it; the rank is in the environment too.
    parser.add_argument("--local_rank", "--local-rank", help=argparse.SUPPRESS)
    options = parser.parse_intermixed_args(arguments)
    first = int(os.environ.get("RANK", "0")) == 0
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(levelname)s: %(message)s")
    try:
        recipe, overrides = recipe_and_overrides(options.recipe, options.overrides, options.config, options.set)
        train(
            recipe,
            overrides,
            resume=options.resume,
            check=options.check,
            overwrite=options.overwrite,
            progress=first,
        )
    except InputError as error:
        if first or not _first_says(str(error)):
            print(f"Error: {error}", file=sys.stderr, flush=True)
        if first:
            _told(str(error))
        return 2
    except KeyboardInterrupt:
        if first:
            print("Interrupted. `--resume` continues from the last complete checkpoint.", file=sys.stderr)
        return 130
    return 0


def _told(text: str) -> None:
    """Let the other ranks know what the first has said."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        _get_default_store().set(_key(text), "said")


def _first_says(text: str) -> bool:
    """Whether the first rank says the same, so that it is said once; a trouble of this rank's own it never says."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return True  # nothing but the recipe has been read yet, and all read the same
    try:
        _get_default_store().wait([_key(text)], PATIENCE)
    except torch.distributed.DistNetworkError:
        return True  # the first has ended already, with what it had to say
    except torch.distributed.DistError:
        return False
    return True


def _key(text: str) -> str:
    return f"vfl/said/{sha256(text.encode()).hexdigest()}"


def leave() -> None:
    """Close the connections to the other ranks: threads of theirs that outlive the interpreter abort the process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    code = main()
    leave()
    sys.exit(code)
