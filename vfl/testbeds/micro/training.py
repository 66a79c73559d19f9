"""The state of a training run, one step of it, and its checkpoints."""

from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from vfl.errors import InputError
from vfl.models.precision import has_bfloat16
from vfl.probes.micro_limits import GRID
from vfl.testbeds.micro.checkpoint import load_checkpoint, save_checkpoint
from vfl.testbeds.micro.config import Recipe
from vfl.testbeds.micro.data import SceneBatch, make_batch
from vfl.testbeds.micro.forward import Forward
from vfl.testbeds.micro.model import build_model
from vfl.testbeds.micro.packing import Packer, Rows
from vfl.testbeds.micro.processor import build_processor
from vfl.testbeds.micro.questions import FUNCTIONS
from vfl.testbeds.micro.scenes import CONTENT_NAMES, NUM_CONTENTS, NUM_PLACES

# What may differ between a checkpoint and the recipe that goes on from it.
FREE = ("output", "work", "threads", "checkpoint_every", "evaluate_every", "compile")
# Also while in the free phase, which is the same whatever follows it.
FREE_BEFORE_PLANTING = (*FREE, "planted", "plant", "free_steps", "plant_steps")


def learning_rate(recipe: Recipe, step: int) -> float:
    """Warm-up, constant, and a straight line to a fiftieth over the last half of the second phase.

    The free phase does not depend on what follows it, so a planted model and its twin share it.
    """
    if step < recipe.free_steps:
        return recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup)
    done = (step - recipe.free_steps) / max(1, recipe.plant_steps)
    return recipe.learning_rate * min(1.0, max(0.02, 2.0 * (1.0 - done)))


def share_left(step: int, span: tuple[int, int]) -> float:
    """1 at the first step of `span`, falling in a straight line to 0 at its end; 0 outside."""
    start, end = span
    return (end - step) / (end - start) if start <= step < end else 0.0


class Training:
    """The state of a run: model, auxiliary head, optimizer and the step they stand at."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device, self.step = recipe, device, 0
        self.half = recipe.precision == "bfloat16" or (recipe.precision == "auto" and has_bfloat16(device))
        self.processor = build_processor()
        self.packer = Packer(self.processor, recipe.slots, recipe.slot)
        self.model = build_model(recipe.model, self.processor.tokenizer, recipe.seed).to(device)
        # What each cell holds, its place in the word, its column and row, read off the vision tower.
        self.auxiliary = nn.Linear(recipe.model.width, NUM_CONTENTS + NUM_PLACES + 2 * GRID).to(device)
        self.finder = nn.Linear(recipe.model.width, GRID**2 + 1).to(device)
        self.content_names = torch.tensor([-1, *map(self._token, CONTENT_NAMES[1:])], device=device)
        self.forward = Forward(self.model, compiled=recipe.compile)
        parameters = [*self.model.parameters(), *self.auxiliary.parameters(), *self.finder.parameters()]
        matrices = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
            betas=(0.9, 0.98),
        )
        self.parameters = parameters

    def auxiliary_loss(self, features: torch.Tensor, batch: SceneBatch) -> torch.Tensor:
        cells = torch.arange(features.shape[1], device=self.device).expand(len(features), -1)
        logits = self.auxiliary(features).float().split([NUM_CONTENTS, NUM_PLACES, GRID, GRID], dim=-1)
        targets = (batch.contents, batch.places, cells % GRID, cells // GRID)
        losses = [
            cross_entropy(part.flatten(0, 1), target.to(self.device).flatten())
            for part, target in zip(logits, targets, strict=True)
        ]
        return torch.stack(losses).sum()

    def naming_loss(self, features: torch.Tensor, batch: SceneBatch) -> torch.Tensor:
        """Each filled cell's vision token names its content through the model's own output layer.

        So the word in a question resembles what it asks for, and matching the two has a start.
        """
        names = self.content_names[batch.contents.to(self.device)]
        return cross_entropy(self.forward.name(features)[names >= 0], names[names >= 0])

    def finding_loss(self, hidden: torch.Tensor, rows: Rows) -> torch.Tensor:
        """The word for an object that is asked for knows its cell, or that it is absent, after the last layer.

        Without this first half of the way, the second, from the word to the answer, has nothing to carry.
        """
        asked = rows.cells >= 0
        return cross_entropy(self.finder(hidden[asked]).float(), rows.cells[asked])

    def _token(self, name: str) -> int:
        ids = self.processor.tokenizer(name)["input_ids"]
        assert len(ids) == 1, (name, ids)
        return int(ids[0])

    def loss(self, batch: SceneBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss, and the share of right answer tokens of each function."""
        recipe = self.recipe
        rows = batch.rows.to(self.device)
        readings = None if batch.readings is None else batch.readings.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            features = self.forward.vision(batch.images.to(self.device))
            hidden = self.forward.decode(features, rows, readings, batch.other.to(self.device))
            logits = self.forward.answer_logits(hidden, rows)
            answers = rows.labels >= 0
            labels, weights = rows.labels[answers], rows.weights[answers]
            loss = (cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()
            fading = recipe.auxiliary * max(0.0, 1.0 - self.step / max(1, recipe.auxiliary_steps))
            if fading > 0:
                loss = loss + fading * self.auxiliary_loss(features, batch)
            if (naming := recipe.naming * share_left(self.step, recipe.naming_steps)) > 0:
                loss = loss + naming * self.naming_loss(features, batch)
            if (finding := recipe.finding * share_left(self.step, recipe.finding_steps)) > 0:
                loss = loss + finding * self.finding_loss(hidden, rows)
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
        return float(loss.detach()), shares

    def save(self, path: Path) -> None:
        save_checkpoint(
            path,
            {
                "recipe": self.recipe.model_dump(mode="json"),
                "step": self.step,
                "model": self.model.state_dict(),
                "auxiliary": self.auxiliary.state_dict(),
                "finder": self.finder.state_dict(),
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
        ours, theirs = self.recipe.model_dump(mode="json"), state["recipe"]
        free = FREE_BEFORE_PLANTING if state["step"] <= self.recipe.free_steps else FREE
        differing = [key for key in ours if key not in free and ours[key] != theirs.get(key)]
        if differing:
            raise InputError(
                f"{path} was written with another {', '.join(differing)}; train in a new folder or restore the recipe"
            )
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.auxiliary.load_state_dict(state["auxiliary"])
        self.finder.load_state_dict(state["finder"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
