"""The state of a training run: the steps of vision tower and connector, then those of the language model's LoRA."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.nn.functional import cross_entropy

from vfl.engine.attention_tap import attention_of
from vfl.errors import InputError
from vfl.probes import micro_limits as style
from vfl.testbeds.micro.checkpoint import load_checkpoint, save_checkpoint
from vfl.testbeds.micro.questions import FUNCTIONS
from vfl.testbeds.smol.aloud import counted_aloud, digit_ids
from vfl.testbeds.smol.config import Recipe
from vfl.testbeds.smol.data import SceneBatch, make_batch
from vfl.testbeds.smol.language import language_model
from vfl.testbeds.smol.model import build_model
from vfl.testbeds.smol.own_texts import OwnTexts, distance, own_texts
from vfl.testbeds.smol.packing import Packer, Rows
from vfl.testbeds.smol.parts_file import read_parts
from vfl.testbeds.smol.planting import NAME, Readings
from vfl.testbeds.smol.processor import SPECIAL, build_processor
from vfl.testbeds.smol.tower import LETTERED, CellReader, draw_scenes, look, pixels

# What may differ between a checkpoint and the recipe that goes on from it.
FREE = (
    "output",
    "work",
    "threads",
    "checkpoint_every",
    "evaluate_every",
    "steps",
    "decay",
    "asked",
    "pictures",
    "learning_rate",
)
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FINDER_RATE = 1e-3
SCALE = 2  # of the LoRA: alpha over rank
LOWEST = 0.05  # of the learning rate, at the last step


def schedule(step: int, steps: int, warmup: int, decay: float) -> float:
    """Warm-up, constant, and a straight line to a twentieth over the last share `decay` of the steps."""
    rising = min(1.0, (step + 1) / max(1, warmup))
    falling = (steps - step) / max(1.0, decay * steps)
    return min(rising, max(LOWEST, min(1.0, falling)))


def fading(step: int, steps: int) -> float:
    """1 at the first step, falling in a straight line to 0 at `steps`."""
    return max(0.0, 1.0 - step / max(1, steps))


class Training:
    """Model, reading heads, optimizer and the step they stand at; steps of the tower alone are negative."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.step = 0 if recipe.start else -recipe.tower.steps
        self.language = language_model(recipe.lm)
        self.processor = build_processor(self.language)
        tokenizer = self.processor.tokenizer
        self.packer = Packer(self.processor, recipe.tokens)
        self.digits = digit_ids(tokenizer)
        self.texts: OwnTexts | None = None
        self.model = build_model(self.language, tokenizer, recipe.tower, recipe.seed).to(device)
        width = self.model.config.text_config.hidden_size
        self.reader = CellReader(self.model, tokenizer).to(device)
        self.finder = nn.Linear(width, style.GRID**2 + 1).to(device)
        self.model.requires_grad_(False)
        self.text = self.model.model.text_model
        num_layers = len(self.text.layers)
        if recipe.plant is not None and (beyond := recipe.plant.beyond(num_layers)):
            raise InputError(f"plant.layers names {beyond}; the language model has layers 0 to {num_layers - 1}")
        adapter = LoraConfig(r=recipe.rank, lora_alpha=SCALE * recipe.rank, target_modules=PROJECTIONS)
        inject_adapter_in_model(adapter, self.text)
        # The rows of the image's own tokens, apart from the frozen embeddings.
        self.new_ids = torch.tensor(tokenizer.convert_tokens_to_ids(list(SPECIAL)), device=device)
        self.new_rows = nn.Parameter(self.text.get_input_embeddings().weight[self.new_ids].clone())
        self.eyes = [*self.model.model.vision_model.parameters(), *self.model.model.connector.parameters()]
        self.lora = [parameter for name, parameter in self.text.named_parameters() if "lora_" in name]
        if recipe.start is not None:
            self.start_from(recipe.start)
        self.begin_phase()

    def start_from(self, path: Path) -> None:
        """Take trained parts as they stand.

        Raises:
            InputError: the file holds no trained parts, or those of another tower or rank.
        """
        about, tensors = read_parts(path)
        ours = {"tower": self.recipe.tower.model_dump(), "rank": self.recipe.rank}
        if differing := [key for key in ours if about[key] != ours[key]]:
            raise InputError(f"{path} was trained with another {' and '.join(differing)}; name these as that run did")
        self.set_parts(tensors)

    def begin_phase(self) -> None:
        """Make trainable what the phase of `step` trains, with a new optimizer."""
        recipe, seeing = self.recipe, self.step < 0
        for parameter in self.eyes:
            parameter.requires_grad_(seeing)
        if seeing:
            groups = [{"params": [*self.eyes, *self.reader.parameters()], "rate": recipe.tower.learning_rate}]
        else:
            groups = [
                {"params": [*self.lora, self.new_rows], "rate": recipe.learning_rate},
                {"params": list(self.finder.parameters()), "rate": FINDER_RATE},
            ]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)

    @property
    def trained(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def decode(self, features: torch.Tensor, rows: Rows, readings: Readings | None = None) -> torch.Tensor:
        """Final hidden states (B, T, width) of packed rows; `readings` as drawn by planting."""
        embedded = self.text.get_input_embeddings()(rows.input_ids)
        for index, new in enumerate(self.new_ids):
            embedded = torch.where((rows.input_ids == new)[..., None], self.new_rows[index], embedded)
        embedded = embedded.masked_scatter(rows.vision[..., None], features.to(embedded.dtype))
        inputs = {"inputs_embeds": embedded, "attention_mask": rows.mask(), "position_ids": rows.positions}
        if readings is None:
            done = self.text(**inputs, use_cache=False)
        else:
            with attention_of(self.text.config, NAME):
                done = self.text(**inputs, use_cache=False, readings=readings)
        hidden: torch.Tensor = done.last_hidden_state
        return hidden

    def answer_logits(self, hidden: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Logits at the positions that predict an answer token, row by row: (answer tokens, vocabulary)."""
        return self.outputs(hidden[rows.labels >= 0])

    def outputs(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., vocabulary) logits of (..., width) final hidden states; the new rows are outputs too."""
        logits: torch.Tensor = self.model.lm_head(hidden)
        return logits.index_copy(-1, self.new_ids, hidden @ self.new_rows.T)

    def batch(self, step: int) -> SceneBatch:
        return make_batch(self.recipe, self.packer, step, len(self.text.layers))

    def loss(self, batch: SceneBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss, and the share of each function's answers that are right in every token."""
        rows, step, recipe = batch.rows.to(self.device), self.step, self.recipe
        features = look(self.model, pixels(batch.scenes).to(self.device))
        readings = None if batch.readings is None else batch.readings.to(self.device)
        hidden = self.decode(features, rows, readings)
        logits = self.answer_logits(hidden, rows)
        answers = rows.labels >= 0
        labels, weights = rows.labels[answers], rows.weights[answers]
        loss = (cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()
        if (share := recipe.finding * fading(step, recipe.finding_steps)) > 0:
            asked = rows.cells >= 0
            loss = loss + share * cross_entropy(self.finder(hidden[asked]), rows.cells[asked])
        shares = exact(logits, rows)
        aloud = counted_aloud(rows, batch.scenes, self.digits)
        if (share := recipe.aloud * fading(step, recipe.finding_steps)) > 0 and (counted := aloud >= 0).any():
            digits = self.outputs(hidden[counted])
            loss = loss + share * cross_entropy(digits, aloud[counted])
            shares["aloud"] = float((digits.argmax(-1) == aloud[counted]).float().mean())
        return loss, shares

    def text_loss(self) -> torch.Tensor:
        """How far the decoder has gone from the language model on one of its own texts."""
        if self.texts is None:
            path = self.recipe.work / "own_texts.safetensors"
            self.texts = own_texts(path, self.language, self.processor.tokenizer, self.recipe.seed)
        rng = np.random.default_rng([self.recipe.seed, 4, self.step])
        ids, theirs = self.texts.text(int(rng.integers(len(self.texts.ids))))
        ours = self.text(input_ids=ids.to(self.device), use_cache=False).last_hidden_state
        return distance(self.model.lm_head(theirs.to(self.device)), self.model.lm_head(ours))

    def advance(self) -> tuple[float, dict[str, float]]:
        """One step, of the tower alone while `step` is negative."""
        recipe, tower = self.recipe, self.recipe.tower
        if self.step < 0:
            done = self.step + tower.steps
            scale = schedule(done, tower.steps, tower.warmup, tower.decay)
            rng = np.random.default_rng([recipe.seed, 1, done])
            scenes = draw_scenes(rng, tower.batch, LETTERED)
            loss, shares = self.reader.loss(look(self.model, pixels(scenes).to(self.device)), scenes)
        else:
            scale = schedule(self.step, recipe.steps, recipe.warmup, recipe.decay)
            loss, shares = self.loss(self.batch(self.step))
            if recipe.texts:
                kept = self.text_loss()
                loss, shares["text"] = loss + recipe.texts * kept, float(kept.detach())
        for group in self.optimizer.param_groups:
            group["lr"] = scale * group["rate"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.step += 1
        if self.step == 0:
            self.begin_phase()
        return float(loss.detach()), shares

    def parts(self) -> Iterator[tuple[str, torch.Tensor]]:
        """What training changes of the model, by name."""
        for name, parameter in self.model.named_parameters():
            if "lora_" in name or name.startswith(("model.vision_model.", "model.connector.")):
                yield name, parameter
        yield "new_rows", self.new_rows

    @torch.no_grad()
    def set_parts(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self.parts():
            parameter.copy_(tensors[name])

    def save(self, path: Path) -> None:
        save_checkpoint(
            path,
            {
                "recipe": self.recipe.model_dump(mode="json"),
                "step": self.step,
                "parts": {name: parameter.detach() for name, parameter in self.parts()},
                "reader": self.reader.state_dict(),
                "finder": self.finder.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
        )

    def load(self, path: Path) -> None:
        """Continues a run.

        Raises:
            InputError: the checkpoint was written by a recipe that would have trained otherwise.
        """
        state = load_checkpoint(path)
        ours, theirs = self.recipe.model_dump(mode="json"), state["recipe"]
        differing = [key for key in ours if key not in FREE and ours[key] != theirs.get(key)]
        if differing:
            raise InputError(
                f"{path} was written with another {', '.join(differing)}; train in a new folder or restore the recipe"
            )
        self.step = state["step"]
        self.set_parts(state["parts"])
        self.reader.load_state_dict(state["reader"])
        self.finder.load_state_dict(state["finder"])
        self.begin_phase()
        rates = [group["rate"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["rate"] = rate


def exact(logits: torch.Tensor, rows: Rows) -> dict[str, float]:
    """Each function's share of answers of which every token is the most likely one."""
    answers = rows.labels >= 0
    right = (logits.argmax(-1) == rows.labels[answers]).float()
    numbers, functions = rows.numbers[answers], rows.functions[answers]
    shares = {}
    for index, name in enumerate(FUNCTIONS):
        mine = functions == index
        _, owner = numbers[mine].unique(return_inverse=True)
        if len(owner):
            whole = torch.ones(int(owner.max()) + 1, device=right.device).scatter_reduce(
                0, owner, right[mine], reduce="amin"
            )
            shares[name] = float(whole.mean())
    return shares
