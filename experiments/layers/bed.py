"""A model with its tasks' rows encoded and the questions that judge an adapter, each worked out once.

Groups of questions are `new`, the task's own test, and a function's name for old ones.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import vfl
from experiments.layers.loop import Row, as_anchors, encode
from experiments.layers.tasks import TASKS, write_tasks
from vfl.data import read
from vfl.evaluate.answers import Evaluator
from vfl.evaluate.items import items_of_data, items_of_probes
from vfl.evaluate.sources import suite_of
from vfl.models.conversation import encoder_of
from vfl.train.adapter.lora import build_lora
from vfl.train.layers.scores import score_layers
from vfl.train.layers.warmup import warmup_scores
from vfl.train.rows.collate import Collator
from vfl.train.rows.replay_rows import replayed, replayed_in_halves
from vfl.train.rows.table import write_rows

NEW = "new"
PAIRS, TESTED, PROBE_SEED = 40, 100, 77
SCORED, SCORED_BATCH = 64, 8
WARMUP_RATE = 5e-3
LONGEST = 48  # tokens of an answer: a box
EXACT = ("roman", "cells")  # answers that no looser comparison may take for a number or a word
WORN_NOISE = 1.2  # of each weight matrix's own deviation


class Bed:
    """One model, plain or worn.

    Args:
        model: folder of the weights or a name; None for the embedded model.
        out: where tasks, probes and scores lie.
        noise: deviation of the noise added to the decoder's weights.
        tested: questions of a task's own test that are asked.
    """

    def __init__(self, model: str | None, out: Path, noise: float = 0.0, tested: int = TESTED) -> None:
        # Eager is the fastest at these lengths; float32 on a GPU too, so that its runs stand beside a CPU's.
        self.vlm = vfl.load(model, attn_implementation="eager", dtype="float32")
        write_tasks(out / "tasks", boxes=self.vlm.family.boxes)
        self.out = out
        self.tested = tested
        if noise:
            wear(self.vlm, noise, seed=0)
        pairs = suite_of("micro", out / "probes", pairs=PAIRS, seed=PROBE_SEED)
        self.probes = items_of_probes(self.vlm, pairs)
        self._rows: dict[str, list[Row]] = {}
        self._replayed: dict[int, Row] = {}
        self._anchors: dict[int, Row] = {}
        self._evaluators: dict[str, Evaluator] = {}

    def rows(self, task: str) -> list[Row]:
        """The training rows of a task."""
        if task not in self._rows:
            self._rows[task] = encode(self.vlm, self._written(task))
        return self._rows[task]

    def mixed(self, task: str, share: float, seed: int, *, hold: bool = False, favour: bool = False) -> list[Row]:
        """A task's rows with old rows among them, `share` of all, to be learned again or held as anchors.

        Args:
            favour: half of the old rows are of the task's own function; else as the pool has them.
        """
        rows = self.rows(task)
        if not share:
            return rows
        pool = self._pool
        if favour:
            own = [function == TASKS[task].old for function in self._functions]
            chosen = replayed_in_halves(len(rows), own, share, seed)
        else:
            chosen = replayed(len(rows), len(pool), share, seed)
        known = self._anchors if hold else self._replayed
        if missing := sorted(set(chosen) - known.keys()):
            encoded = encode(self.vlm, [pool[n] for n in missing])
            known.update(zip(missing, as_anchors(self.vlm, encoded) if hold else encoded, strict=True))
        return rows + [known[n] for n in chosen]

    @cached_property
    def _pool(self) -> Sequence[Any]:
        """Old rows, of which a run takes some."""
        return self._written("replay")

    @cached_property
    def _functions(self) -> list[str]:
        """The function of each old row."""
        lines = (self.out / "tasks" / "replay" / "train.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["function"] for line in lines]

    def correct(self, task: str) -> dict[str, str]:
        """Which answers are right now: a digit an item, in the order of their ids, by group."""
        if task not in self._evaluators:
            match = "exact" if task in EXACT else "auto"
            samples = list(read(self.out / "tasks" / task / "test.jsonl"))
            items = items_of_data(samples[: self.tested], name=NEW, match=match, max_new_tokens=LONGEST)  # type: ignore[arg-type]
            self._evaluators[task] = Evaluator(self.vlm, [*items, *self.probes], batch=64)
        groups: dict[str, list[tuple[str, bool]]] = {}
        for answered in self._evaluators[task].answer():
            groups.setdefault(answered.group, []).append((answered.id, answered.correct))
        return {name: "".join(str(int(right)) for _, right in sorted(found)) for name, found in groups.items()}

    def scores(self, model: str, task: str) -> dict[str, list[float]]:
        """What each data rule says of the layers, on the task's first rows."""
        path = self.out / "scores" / f"{model}-{task}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self._scored(task)) + "\n", encoding="utf-8")
        found: dict[str, list[float]] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def _scored(self, task: str) -> dict[str, Any]:
        rows, collator = self._written(task), Collator(encoder_of(self.vlm))
        batches = [
            collator([rows[n] for n in range(start, start + SCORED_BATCH)]) for start in range(0, SCORED, SCORED_BATCH)
        ]
        scores = score_layers(self.vlm.model, batches)
        lora = build_lora(self.vlm.model, range(self.vlm.num_layers), {"r": 16, "lora_dropout": 0.0})
        return {
            "gradient": scores.gradient,
            "fisher": scores.fisher,
            "similarity": scores.similarity,
            "warmup": warmup_scores(self.vlm.model, lora, batches, WARMUP_RATE, seed=0),
            "modules": scores.modules,
        }

    def _written(self, task: str) -> Sequence[Any]:
        folder = self.out / "tasks" / task
        rows = write_rows(read(folder / "train.jsonl"), folder / "rows.arrow")  # type: ignore[arg-type]
        return [rows[n] for n in range(len(rows))]


@torch.no_grad()
def wear(vlm: vfl.VLM, noise: float, seed: int) -> None:
    """Noise on the decoder's matrices: every function loses some of its accuracy."""
    generator = torch.Generator().manual_seed(seed)
    for layer in vlm.layers:
        for weight in layer.parameters():
            if weight.dim() > 1:
                drawn = torch.randn(weight.shape, generator=generator).to(weight)
                weight.add_(drawn * noise * weight.std())


def bed_of(model: str, task: str, weights: str | None, out: Path, beds: dict[str, Bed]) -> Bed:
    """The bed of a task, kept in `beds`."""
    name = f"{model} worn" if TASKS[task].shift == "mixed" else model
    if name not in beds:
        beds[name] = Bed(weights, out, WORN_NOISE if name != model else 0.0)
    return beds[name]
