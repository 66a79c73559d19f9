"""Trains the embedded model from scratch:

    python -m vfl.micro.train recipes/micro/pretrain.yaml [--resume] [--set KEY=VALUE ...]

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
from torch import nn
from torch.nn.functional import cross_entropy

from vfl.errors import InputError
from vfl.micro.checkpoint import load_checkpoint, save_checkpoint, write_folder
from vfl.micro.config import Recipe, read_recipe
from vfl.micro.data import Batch, make_batch
from vfl.micro.forward import Forward, tapped
from vfl.micro.model import build_model
from vfl.micro.packing import Packer
from vfl.micro.processor import build_processor
from vfl.micro.questions import FUNCTIONS
from vfl.micro.scenes import NUM_CONTENTS, NUM_PLACES
from vfl.micro.watch import Watch

logger = logging.getLogger(__name__)
WATCH_SEED = 10**9  # batches use small numbers: the watched pairs are held out
WATCH_PAIRS = 96


def learning_rate(recipe: Recipe, step: int) -> float:
    """Warm-up, constant, and a straight line to a fiftieth over the last half of the second phase.

    The free phase does not depend on what follows it, so a planted model and its twin share it.
    """
    if step < recipe.free_steps:
        return recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup)
    done = (step - recipe.free_steps) / max(1, recipe.plant_steps)
    return recipe.learning_rate * min(1.0, max(0.02, 2.0 * (1.0 - done)))


class Training:
    """The state of a run: model, auxiliary head, optimizer and the step they stand at."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device, self.step = recipe, device, 0
        self.processor = build_processor()
        self.packer = Packer(self.processor, recipe.slots, recipe.slot)
        self.model = build_model(recipe.model, self.processor.tokenizer, recipe.seed).to(device)
        # What each cell holds, its place in the word, its column and row, read off the vision tower.
        self.auxiliary = nn.Linear(recipe.model.width, NUM_CONTENTS + NUM_PLACES + 10).to(device)
        self.forward = Forward(self.model, compiled=recipe.compile)
        parameters = [*self.model.parameters(), *self.auxiliary.parameters()]
        matrices = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
            betas=(0.9, 0.98),
        )
        self.parameters = parameters

    def auxiliary_loss(self, features: torch.Tensor, batch: Batch) -> torch.Tensor:
        cells = torch.arange(features.shape[1], device=self.device).expand(len(features), -1)
        logits = self.auxiliary(features).float().split([NUM_CONTENTS, NUM_PLACES, 5, 5], dim=-1)
        targets = (batch.contents, batch.places, cells % 5, cells // 5)
        losses = [
            cross_entropy(part.flatten(0, 1), target.to(self.device).flatten())
            for part, target in zip(logits, targets, strict=True)
        ]
        return torch.stack(losses).sum()

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss, and the share of right answer tokens of each function."""
        recipe = self.recipe
        rows = batch.rows.to(self.device)
        readings = None if batch.readings is None else batch.readings.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            features = self.forward.vision(batch.images.to(self.device))
            hidden = self.forward.decode(features, rows, readings, batch.other.to(self.device))
            logits = self.forward.answer_logits(hidden, rows)
            answers = rows.labels >= 0
            labels, weights = rows.labels[answers], rows.weights[answers]
            loss = (cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()
            fading = recipe.auxiliary * max(0.0, 1.0 - self.step / max(1, recipe.free_steps))
            if fading > 0:
                loss = loss + fading * self.auxiliary_loss(features, batch)
        asked = rows.functions[answers[:, self.packer.head :]]
        right = (logits.argmax(-1) == labels).float()
        shares = {name: float(right[asked == index].mean()) for index, name in enumerate(FUNCTIONS)}
        return loss, shares

    def advance(self) -> tuple[float, dict[str, float]]:
        """One step."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step)
        loss, shares = self.loss(make_batch(self.recipe, self.packer, self.step))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.step += 1
        return float(loss), shares

    def save(self, path: Path) -> None:
        save_checkpoint(
            path,
            {
                "recipe": self.recipe.model_dump(mode="json"),
                "step": self.step,
                "model": self.model.state_dict(),
                "auxiliary": self.auxiliary.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "rng": torch.get_rng_state(),
            },
        )

    def load(self, path: Path) -> None:
        """Continues a run.

        Raises:
            InputError: the checkpoint was written by a recipe that would have trained otherwise.
        """
        state = load_checkpoint(path)
        free = ("output", "work", "threads", "checkpoint_every", "evaluate_every", "compile")
        ours, theirs = self.recipe.model_dump(mode="json"), state["recipe"]
        if state["step"] <= self.recipe.free_steps:  # the free phase is the same whatever follows it
            free += ("planted", "plant", "plant_steps")
        differing = [key for key in ours if key not in free and ours[key] != theirs.get(key)]
        if differing:
            raise InputError(
                f"{path} was written with another {', '.join(differing)}; train in a new folder or restore the recipe"
            )
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.auxiliary.load_state_dict(state["auxiliary"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])


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
    return Recipe.model_validate({**recipe.model_dump(), **changes})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vfl.micro.train", description=__doc__)
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
