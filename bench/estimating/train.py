"""A training step as `vfl train` assembles it, with what it costs."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.swapping.measure import count_flops
from vfl.probes.pair import Pair
from vfl.train.assemble import assemble
from vfl.train.backward.memory import step_memory
from vfl.train.backward.truncate import truncate
from vfl.train.check import probe_step
from vfl.train.recipe import read_recipe

ROWS = 2


@dataclass(frozen=True)
class MeasuredStep:
    """One forward and backward pass of `rows` rows of `tokens` tokens; seconds are the processors'.

    `constant` tokens at each row's beginning have no backward pass.
    """

    rows: int
    tokens: int
    constant: int
    operations: int
    peak_bytes: int
    seconds: float


def measured_step(
    model: str, pairs: list[Pair], layers: list[int], rank: int, folder: Path, repeats: int, short: bool = False
) -> MeasuredStep:
    """Measure LoRA in these layers on a pair's question and answer, without checkpointing.

    Args:
        short: whether the backward pass ends at the image.
    """
    pair = pairs[0]
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": pair.question}]},
        {"role": "assistant", "content": [{"type": "text", "text": pair.answer}]},
    ]
    data = folder / "rows.jsonl"
    row = json.dumps({"images": [str(pair.path("image"))], "messages": turns})
    data.write_text(f"{row}\n" * ROWS, encoding="utf-8")
    recipe = {
        "model": model,
        "out": str(folder / ("short" if short else "whole")),
        "data": {"train": str(data), "workers": 0},
        "layers": layers,
        "lora": {"r": rank},
        "dtype": "float32",
        "checkpointing": "off",
        "backward": {"tokens": "after_image", "whole_every": 0} if short else "whole",
        "trainer": {"per_device_train_batch_size": ROWS, "max_steps": 1, "disable_tqdm": True, "use_cpu": True},
    }
    parts = assemble(read_recipe(recipe), progress=False)
    batch = parts.trainer.data_collator([parts.prepared.rows[number] for number in range(ROWS)])
    step = probe_step(parts.trainer, batch)
    starts = batch.get("starts", torch.zeros(ROWS, dtype=torch.long))
    with truncate(parts.peft_model, checkpointing=False):
        _, operations = count_flops(step)
        memory = step_memory(step, torch.device("cpu"))
        start = time.process_time()
        for _ in range(repeats):
            step()
        seconds = (time.process_time() - start) / repeats
    return MeasuredStep(ROWS, int(batch["input_ids"].shape[1]), int(starts[0]), operations, memory.peak_bytes, seconds)
