"""The training command for launchers; `vfl train` is the same in one process.

torchrun --nproc-per-node 8 --module vfl.train.launch recipe.yaml [key=value ...] [--resume] [--check] [--overwrite]
accelerate launch --module vfl.train.launch recipe.yaml
deepspeed --module vfl.train.launch recipe.yaml

The recipe's `method` decides between SFT, DPO, KTO and GRPO.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vfl.errors import InputError
from vfl.io.config import recipe_and_overrides
from vfl.launching.ranks import leave
from vfl.launching.said_once import say_once
from vfl.train.run import train


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
        say_once(f"Error: {error}")
        return 2
    except KeyboardInterrupt:
        if first:
            print("Interrupted. `--resume` continues from the last complete checkpoint.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    code = main()
    leave()
    sys.exit(code)
