"""Trains the small vision-language model:

    python -m vfl.testbeds.smol.train recipes/smol/pretrain.yaml [--resume] [--lm FOLDER_OR_ID] [--set KEY=VALUE ...]

Two phases: the vision tower alone, then the decoder's LoRA on its tokens. Batches depend on seed and step alone, so a
resumed run goes on as an uninterrupted one. Writes the trained parts; `python -m vfl.testbeds.smol.build --parts FILE`
makes a model of them.
"""

import argparse
import logging
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch

from vfl.errors import InputError
from vfl.io.config import read_config
from vfl.testbeds.micro.questions import FUNCTIONS
from vfl.testbeds.smol.config import Recipe
from vfl.testbeds.smol.parts import write_parts
from vfl.testbeds.smol.training import Training
from vfl.testbeds.smol.watch import Watch

logger = logging.getLogger(__name__)
LOG_EVERY = 25
MEMORY = 0.9  # of the running means in the log


def train(recipe: Recipe, resume: bool = False, stop_at: int | None = None) -> Training:
    """Runs a recipe; `stop_at` ends early with a checkpoint, as an interruption would."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    training = Training(recipe, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    path = recipe.work / "checkpoint.pt"
    if resume and path.exists():
        training.load(path)
        logger.info("resumed at step %d", training.step)
    elif path.exists():
        raise InputError(f"{path} is the checkpoint of an earlier run; continue it with --resume or remove it")
    end = recipe.steps if stop_at is None else min(stop_at, recipe.steps)
    started, first, means = time.monotonic(), training.step, dict[str, float]()
    while training.step < end:
        loss, shares = training.advance()
        step = training.step
        if step == 0:  # another phase: other figures, another pace
            started, first, means = time.monotonic(), 0, {}
            training.save(path)
            continue
        for name, share in shares.items():
            means[name] = share if name not in means else MEMORY * means[name] + (1 - MEMORY) * share
        if step % LOG_EVERY == 0:
            pace = (time.monotonic() - started) / (step - first)
            left = timedelta(seconds=round(pace * ((0 if step < 0 else recipe.steps) - step)))
            right = " ".join(f"{name} {share:.2f}" for name, share in sorted(means.items()))
            logger.info("step %d/%d loss %.3f  %s  %.2f s/step, %s left", step, recipe.steps, loss, right, pace, left)
        if step % recipe.checkpoint_every == 0 or step == end:
            training.save(path)
        if step > 0 and (step % recipe.evaluate_every == 0 or step == end):
            rates = Watch(training).rates()
            logger.info("    held out: %s", "  ".join(f"{name} {rates[name]:.2f}" for name in FUNCTIONS))
    if training.step == recipe.steps:
        write_parts(training, recipe.output)
        logger.info("wrote %s", recipe.output)
    return training


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vfl.testbeds.smol.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the work folder")
    parser.add_argument("--lm", help="folder or hub id of another Llama language model")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the recipe")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    try:
        train(read_config(Recipe, options.recipe, {"lm": options.lm}, options.set), options.resume)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
