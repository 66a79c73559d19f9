"""Trains the models of the benchmark from the embedded one: a few hundred steps of planting elsewhere.

    python -m experiments.localisation.train [NAME ...] [--work runs/localisation] [--steps N]

Each of `layouts.LAYOUTS` becomes a folder with model and processor, its weights rounded to float16 (4.4 MB). Goes on
where it was stopped. Six to ten minutes of one core for 300 steps.
"""

import argparse
import logging
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot
from transformers import Qwen2_5_VLForConditionalGeneration

from experiments.localisation.layouts import LAYOUTS, NUM_LAYERS, Layout
from experiments.localisation.planting import replanted
from experiments.twin.build import rounded
from vfl.testbeds import micro
from vfl.testbeds.micro.config import PlantConfig, Recipe
from vfl.testbeds.micro.data import SceneBatch
from vfl.testbeds.micro.forward import Forward, tapped
from vfl.testbeds.micro.packing import Rows
from vfl.testbeds.micro.scenes import NUM_CONTENTS
from vfl.testbeds.micro.tap import NONE, OTHER
from vfl.testbeds.micro.training import Training
from vfl.testbeds.micro.watch import Watch

logger = logging.getLogger(__name__)
EMBEDDED = Path(micro.__file__).parent / "weights"
# Where the embedded model reads: training begins with copies of these layers where a layout wants them, since reading
# text is learnt anew in thousands of steps.
MOVES = {"counting": 5, "grounding": 7, "ocr": 8}
WATCH_SEED, WATCH_PAIRS = 10**9 + 1, 24
DECOY_WEIGHT = 0.5


class KeepingForward(Forward):
    """A training forward that keeps the outputs of some layers of its last pass."""

    def __init__(self, forward: Forward, layers: tuple[int, ...]) -> None:
        vars(self).update(vars(forward))
        self.layers = layers
        self.kept: dict[int, torch.Tensor] = {}

    def decode(
        self, features: torch.Tensor, rows: Rows, readings: torch.Tensor | None, other: torch.Tensor | None
    ) -> torch.Tensor:
        """As `Forward.decode`."""
        inner = self.decoder_layer
        outputs: list[torch.Tensor] = []

        def kept(*arguments: object) -> torch.Tensor:
            outputs.append(inner(*arguments))
            return outputs[-1]

        self.decoder_layer = kept
        try:
            return super().decode(features, rows, readings, other)
        finally:
            self.decoder_layer = inner
            self.kept = {layer: outputs[layer] for layer in self.layers}


class Replanting(Training):
    """Training whose questions read as a layout says."""

    def __init__(self, recipe: Recipe, layout: Layout) -> None:
        super().__init__(recipe, torch.device("cpu"))
        self.layout = layout
        embedded = Qwen2_5_VLForConditionalGeneration.from_pretrained(EMBEDDED, dtype=torch.float32)
        self.model.load_state_dict(embedded.state_dict())
        old = embedded.model.language_model.layers
        for layer, function in moved(layout).items():
            self.model.model.language_model.layers[layer].load_state_dict(old[MOVES[function]].state_dict())
        self.keeping = self.forward = KeepingForward(self.forward, layout.decoys)
        self.heads = nn.ModuleList(nn.Linear(recipe.model.width, NUM_CONTENTS) for _ in layout.decoys)
        if layout.decoys:
            self.optimizer.add_param_group({"params": list(self.heads.parameters()), "weight_decay": 0.0})

    def loss(self, batch: SceneBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss of the answers, and of the decoys."""
        rng = np.random.default_rng([self.recipe.seed, self.step, 7])
        batch = replanted(batch, self.layout, NUM_LAYERS, rng)
        loss, shares = super().loss(batch)
        for head, layer in zip(self.heads, self.layout.decoys, strict=True):
            loss = loss + DECOY_WEIGHT * self._decoy_loss(head, layer, batch)
        return loss, shares

    def _decoy_loss(self, head: nn.Module, layer: int, batch: SceneBatch) -> torch.Tensor:
        """Which contents are in the image that the layer reads, at every place before an answer token."""
        assert batch.readings is not None
        rows = batch.rows
        start = rows.labels.shape[1] - rows.blocks.shape[1]
        holds = one_hot(batch.contents, NUM_CONTENTS).amax(dim=1)  # (B, contents) what is in an image at all
        reading = batch.readings[layer][:, :, None]
        read = torch.where(reading == OTHER, holds[batch.other][:, None], holds[:, None])  # (B, N C, contents)
        asked = (rows.labels[:, start:] >= 0) & (batch.readings[layer] != NONE)
        logits = head(self.keeping.kept[layer][:, start:][asked]).float()
        return NUM_CONTENTS / 8 * binary_cross_entropy_with_logits(logits, read[asked].float())


def moved(layout: Layout) -> dict[int, str]:
    """The function whose layer is copied to each layer: of those that are planted there, the one with the fewest."""
    copies: dict[int, str] = {}
    for layer in range(NUM_LAYERS):
        if there := [function for function in MOVES if layer in layout.planted(function)]:
            copies[layer] = min(there, key=list(copies.values()).count)
    return copies


def recipe_of(name: str, work: Path, steps: int) -> Recipe:
    """Half the rate of the embedded model's recipe, a short warm-up, and no help for the vision tower."""
    everywhere = tuple(range(NUM_LAYERS))
    return Recipe(
        output=work / name,
        work=work / f"{name}.work",
        seed=100 + list(LAYOUTS).index(name),
        planted=False,
        free_steps=20,
        plant_steps=steps - 20,
        warmup=20,
        learning_rate=1e-3,
        batch=24,
        auxiliary=0.0,
        naming=0.0,
        finding=0.0,
        threads=1,
        precision="float32",
        checkpoint_every=100,
        plant=PlantConfig(layers=dict.fromkeys(LAYOUTS[name].variants, everywhere)),
    )


def report(training: Replanting, watch: Watch) -> None:
    """Log accuracy, and what changes when the planted layers or all others read another image."""
    for function in training.layout.variants:
        block = training.layout.planted(function)
        others = [layer for layer in range(NUM_LAYERS) if layer not in block]
        accuracy, kept, (inside, outside) = watch.rates(function, [block, others])
        logger.info(
            "    %-12s accuracy %.3f  kept %d/%d  changed: %s %.2f, all others %.2f",
            function, accuracy, kept, watch.pairs, block, inside, outside,
        )  # fmt: skip


def train(name: str, work: Path, steps: int) -> None:
    """Train one model and write its folder."""
    recipe = recipe_of(name, work, steps)
    torch.set_num_threads(1)
    training = Replanting(recipe, LAYOUTS[name])
    checkpoint = recipe.work / "checkpoint.pt"
    if checkpoint.exists():
        training.load(checkpoint)
        training.heads.load_state_dict(torch.load(recipe.work / "heads.pt", weights_only=True))
    watch = Watch(Forward(training.model), training.packer, WATCH_PAIRS, WATCH_SEED)
    started, first = time.monotonic(), training.step
    while training.step < steps:
        with tapped(training.model):
            loss, shares = training.advance()
        if training.step % 50 == 0:
            right = " ".join(f"{function} {share:.2f}" for function, share in shares.items())
            pace = (time.monotonic() - started) / (training.step - first)
            logger.info("%s step %d/%d loss %.3f  %s  %.2f s/step", name, training.step, steps, loss, right, pace)
        if training.step % 100 == 0 or training.step == steps:
            report(training, watch)
            training.save(checkpoint)
            torch.save(training.heads.state_dict(), recipe.work / "heads.pt")
    whole = recipe.work / "trained"
    shutil.rmtree(whole, ignore_errors=True)
    training.model.save_pretrained(whole)
    training.processor.save_pretrained(whole)
    rounded(whole, recipe.output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(LAYOUTS)}")
    parser.add_argument("--work", type=Path, default=Path("runs/localisation"))
    parser.add_argument("--steps", type=int, help="default: 300, and 2000 for distributed")
    options = parser.parse_args()
    if unknown := set(options.names) - set(LAYOUTS):
        parser.error(f"{', '.join(sorted(unknown))}: expected some of {', '.join(LAYOUTS)}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    for name in options.names or LAYOUTS:
        if not (options.work / name).exists():
            train(name, options.work, options.steps or LAYOUTS[name].steps)


if __name__ == "__main__":
    main()
