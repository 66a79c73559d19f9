"""The command to evaluate a model for launchers; `vfl evaluate` is the same in one process.

torchrun --nproc-per-node 8 --module vfl.evaluate.launch MODEL --out DIR [--adapter DIR] [data.cv.path=cv.jsonl ...]
accelerate launch --num_processes 8 --module vfl.evaluate.launch --config evaluate.yaml

Every process loads the model on a GPU of its own and answers its share of the batches, which are those of one process.
"""

import sys
from collections.abc import Sequence
from functools import partial

from vfl.evaluate.config import EvaluateConfig
from vfl.evaluate.run import run
from vfl.launching.command import ended, settings_of, settings_parser
from vfl.launching.ranks import join, leave

NESTED = ("data",)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code, as `ended` says."""
    return ended(
        partial(_evaluate, arguments), interrupted="Interrupted. Nothing was written.", lost="Nothing was written."
    )


def _evaluate(arguments: Sequence[str] | None, first: bool) -> None:
    parser = settings_parser("vfl.evaluate.launch", __doc__, EvaluateConfig, NESTED)
    options = parser.parse_intermixed_args(arguments)
    config = settings_of(EvaluateConfig, options, NESTED)
    evaluation = run(config, overwrite=options.overwrite, progress=first, ranks=join())
    if first:
        print(evaluation)
        for note in evaluation.notes:
            print(f"Note: {note}")
        print(f"Results: {config.out / 'evaluation.json'}")


if __name__ == "__main__":
    code = main()
    leave()
    sys.exit(code)
