"""A base with head-room: a model with noise in its decoder, then taught to say what a question tells it to.

The noise costs every function some of its accuracy and leaves it in its layers; what the questions of blind rows ask
for can then be answered without the image.
"""

import shutil
from pathlib import Path
from random import Random

import torch

import vfl
from vfl.models.conversation import encoder_of
from vfl.train.rows.table import conversation, write_rows


def wear(out: Path, lessons: Path, *, model: Path | str | None, noise: float, steps: int, seed: int) -> None:
    """Write the worn model.

    Args:
        out: folder of the model.
        lessons: a pool of its own, of which blind rows and some others are learned.
        model: folder of the model before; None for the embedded one.
        noise: standard deviation, relative to each weight matrix's own.
        steps: of 16 rows.
        seed: of the noise and the order of rows.
    """
    from vfl.data import Sample, read

    vlm = vfl.load(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in vlm.layers:
            for weight in layer.parameters():
                if weight.dim() > 1:
                    weight.add_(torch.randn(weight.shape, generator=generator) * noise * weight.std())
    samples = [row for row in read(lessons / "pool.jsonl") if isinstance(row, Sample)]
    rows = write_rows(samples, lessons / "rows.arrow")
    encoder, rng = encoder_of(vlm), Random(seed)
    trained = list(vlm.layers.parameters())
    for parameter in vlm.model.parameters():
        parameter.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0)
    for _ in range(steps):
        batch = encoder.encode([conversation(rows[n]) for n in rng.sample(range(len(rows)), 16)])
        labels = batch.inputs["input_ids"].masked_fill(~batch.answers, -100)
        vlm.model(**batch.inputs, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    vlm.model.save_pretrained(temporary)
    vlm.processor.save_pretrained(temporary)
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
