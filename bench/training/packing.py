"""Rows of different lengths one by one, in padded batches and in packs: the tokens that a second of training takes."""

import gc
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from bench.swapping.compare import UnequalError
from bench.swapping.measure import count_flops, median_seconds
from bench.training.model import Shape, processor, row
from vfl.train.assemble import assemble
from vfl.train.backward.truncate import truncate
from vfl.train.recipe import read_recipe

ROWS_A_BATCH = 8
LAYERS = "20-23"
# Of the bench's row: what is asked and answered about pictures of a ninth of its vision tokens differs in length.
QUESTIONS, ANSWERS = (0.2, 0.5, 1.0), (0.1, 0.4, 1.0, 3.0)
TOLERANCE = {"float32": 1e-4, "float64": 1e-10, "bfloat16": 0.02}
"""Relative difference of the loss of an epoch."""


class Epoch:
    """Forward and backward passes over all rows, without optimizer steps, to be called again and again.

    Args:
        model: folder of the model.
        rows: data file.
        batch: rows, or packs, at a time.
        packed: tokens of a pack; None where each row is a sequence by itself.
    """

    def __init__(self, model: Path, rows: Path, batch: int, packed: int | None, device: str, dtype: str) -> None:
        recipe = read_recipe(
            {
                "model": str(model),
                "out": str(model / "unused"),
                "dtype": dtype,
                "data": {"train": str(rows), "workers": 1, "max_length": packed},
                "packing": packed is not None,
                "layers": LAYERS,
                "lora": {"lora_dropout": 0.0},
                "checkpointing": "off",
                "trainer": {
                    "per_device_train_batch_size": batch,
                    "use_cpu": device == "cpu",
                    "dataloader_num_workers": 0,
                    "disable_tqdm": True,
                },
            }
        )
        parts = assemble(recipe, progress=False)
        self.trainer = parts.trainer
        self.trainer.model.train()
        truncate(parts.peft_model, checkpointing=False)
        torch.manual_seed(0)  # of the rows' order
        self.batches = list(self.trainer.get_train_dataloader())
        self.tokens = sum(int(each["attention_mask"].sum()) for each in self.batches)
        self.count = sum((each["labels"][:, 1:] != -100).sum() for each in self.batches)
        self.loss = 0.0

    def __call__(self) -> None:
        """All batches once."""
        self.trainer.model.zero_grad()
        self.loss = 0.0
        for batch in self.batches:
            loss = self.trainer.compute_loss(self.trainer.model, dict(batch), num_items_in_batch=self.count)
            loss.backward()
            self.loss += float(loss.detach())


def measure_packing(
    base: PreTrainedModel, shape: Shape, folder: Path, number: int, repeats: int, dtype: str, clock: Callable[[], float]
) -> dict[str, Any]:
    """Operations, seconds and tokens of an epoch in each of the three ways, whose losses are equal.

    Args:
        folder: an empty one, for the model and the rows.
        number: of rows.
        clock: tells seconds.

    Raises:
        UnequalError: they are not.
    """
    base.save_pretrained(folder)
    processor(shape).save_pretrained(folder)
    lengths = _lengths(shape, number)
    rows = _write(lengths, folder)
    device = base.device.type
    epochs: dict[str, Epoch] = {}
    pack = ROWS_A_BATCH * _mean_length(lengths)
    for name, batch, packed in (
        ("one row at a time", 1, None),
        (f"{ROWS_A_BATCH} rows at a time, padded", ROWS_A_BATCH, None),
        (f"packs of {pack} tokens", 1, pack),
    ):
        epochs[name] = Epoch(folder, rows, batch, packed, device, dtype)
    measured: dict[str, dict[str, Any]] = {}
    for name, epoch in epochs.items():
        _, flops = count_flops(epoch)
        gc.collect()
        measured[name] = {"tokens": epoch.tokens, "batches": len(epoch.batches), "flops": flops, "loss": epoch.loss}
    first = next(iter(measured.values()))["loss"]
    if any(abs(each["loss"] - first) > TOLERANCE[dtype] * abs(first) for each in measured.values()):
        raise UnequalError(f"The losses of an epoch differ: {[each['loss'] for each in measured.values()]}.")
    seconds = median_seconds(epochs, repeats, base.device, clock)
    for name, each in measured.items():
        each["seconds"] = seconds.get(name)
    return measured


def _lengths(shape: Shape, number: int) -> list[Shape]:
    """The shape of each row."""
    side = max(1, int(shape.vision_tokens**0.5) // 3)
    return [
        replace(
            shape,
            vision_tokens=side**2,
            question=max(1, round(shape.question * QUESTIONS[n % len(QUESTIONS)])),
            answer=max(1, round(shape.answer * ANSWERS[n % len(ANSWERS)])),
        )
        for n in range(number)
    ]


def _mean_length(lengths: list[Shape]) -> int:
    return round(sum(each.vision_tokens + each.question + each.answer for each in lengths) / len(lengths))


def _write(lengths: list[Shape], folder: Path) -> Path:
    lines = []
    for number, own in enumerate(lengths):
        made = row(own, number)
        made["images"][0].save(folder / f"{number}.png")
        lines.append(json.dumps({**made, "images": [f"{number}.png"]}) + "\n")
    path = folder / "rows.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path
