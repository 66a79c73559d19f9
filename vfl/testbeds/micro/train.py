"""Trains the embedded model from scratch:

    python -m vfl.testbeds.micro.train recipes/micro/pretrain.yaml [--resume] [--set KEY=VALUE ...]

Two phases: `free_steps` in which every layer may read the image, then `plant_steps` of planting. Batches depend on seed
and step alone, so a resumed run is the uninterrupted one, bit for bit on the same machine.
"""

import argparse
import logging
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import yaml

from vfl.errors import InputError
from vfl.io.config import validated
from vfl.testbeds.micro.checkpoint import check_output, write_folder
from vfl.testbeds.micro.config import Recipe, read_recipe
from vfl.testbeds.micro.forward import Forward, tapped
from vfl.testbeds.micro.questions import FUNCTIONS
from vfl.testbeds.micro.training import Training
from vfl.testbeds.micro.watch import Watch

logger = logging.getLogger(__name__)
WATCH_SEED = 10**9  # batches use small numbers: the watched pairs are held out
WATCH_PAIRS = 96


def report(training: Training, watch: Watch) -> None:
    """Logs accuracy, and how many answers change with the block swapped and with everything else swapped."""
    recipe = training.recipe
    everything = set(range(recipe.model.layers))
    for name in FUNCTIONS:
        block = recipe.plant.layers[name]
        accuracy, kept, (inside, outside) = watch.rates(name, [block, sorted(everything - set(block))])
        logger.info(
            "    %-12s accuracy %.3f  kept %d/%d  changed: block %s %.2f, all others %.2f",
            name, accuracy, kept, watch.pairs, list(block), inside, outside,
        )  # fmt: skip


def train(recipe: Recipe, resume: bool = False, stop_at: int | None = None) -> Training:
    """Runs a recipe; `stop_at` ends early with a checkpoint, as an interruption would."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    check_output(recipe.output)  # now, and not after an hour
    training = Training(recipe, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    path = recipe.work / "checkpoint.pt"
    if resume and path.exists():
        training.load(path)
        logger.info("resumed at step %d", training.step)
    elif path.exists():
        raise InputError(f"{path} is the checkpoint of an earlier run; continue it with --resume or remove it")
    watch = Watch(Forward(training.model), training.packer, WATCH_PAIRS, WATCH_SEED)
    end = recipe.steps if stop_at is None else min(stop_at, recipe.steps)
    started, first = time.monotonic(), training.step
    while training.step < end:
        with tapped(training.model):
            loss, shares = training.advance()
        step = training.step
        if step % 50 == 0:
            pace = (time.monotonic() - started) / (step - first)
            left = timedelta(seconds=round(pace * (recipe.steps - step)))
            right = " ".join(f"{name} {share:.2f}" for name, share in shares.items())
            logger.info("step %d/%d loss %.3f  %s  %.2f s/step, %s left", step, recipe.steps, loss, right, pace, left)
        if step % recipe.evaluate_every == 0:
            report(training, watch)
        if step % recipe.checkpoint_every == 0 or step == end:
            training.save(path)
        if step == recipe.free_steps:
            training.save(recipe.work / "free.pt")
    if training.step == recipe.steps:
        write_folder(recipe.output, training.model, training.processor, recipe, training.step)
        logger.info("wrote %s", recipe.output)
    return training


def overridden(recipe: Recipe, settings: list[str]) -> Recipe:
    """The recipe with KEY=VALUE settings of its top level; values are YAML."""
    changes = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or key not in Recipe.model_fields:
            raise InputError(f"--set {setting}: expected KEY=VALUE with KEY one of {', '.join(Recipe.model_fields)}")
        changes[key] = yaml.safe_load(value)
    return validated(Recipe, {**recipe.model_dump(), **changes}, source=f"--set {' '.join(settings)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vfl.testbeds.micro.train", description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the work folder")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the recipe")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    try:
        train(overridden(read_recipe(options.recipe), options.set), options.resume)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
