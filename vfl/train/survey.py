"""A training set's scores of all layers outside of a run: what `vfl layers` prints and saves."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from vfl.errors import InputError
from vfl.io.atomic import replacing
from vfl.models.conversation import encoder_of
from vfl.models.vlm import VLM
from vfl.train.adapter.lora import build_lora
from vfl.train.choose_layers import BATCH, batches
from vfl.train.data_config import DataConfig
from vfl.train.layers.rule_table import Choice
from vfl.train.layers.scores import score_layers
from vfl.train.layers.shift import Shift
from vfl.train.layers.warmup import warmup_scores
from vfl.train.rows.collate import Collator
from vfl.train.rows.prepare import check_paths, prepare

WARMUP_RATE = 2e-4  # the recipe's default


@dataclass(frozen=True)
class Survey:
    """Scores by rule, one number a layer; the gradient rule by module; how many rows were read."""

    scores: dict[str, tuple[float, ...]]
    modules: dict[str, tuple[float, ...]]
    rows: int


def survey(
    vlm: VLM, data: Sequence[Path], *, images: Path | None = None, rows: int = 64, warmup: int = 0, seed: int = 0
) -> Survey:
    """Score the layers by rows of a data set, drawn with `seed`; `warmup` steps of LoRA rank them once more.

    Raises:
        InputError: for data that can't be read or trained on.
    """
    if rows < 1 or warmup < 0:
        raise InputError(f"{rows} rows and {warmup} warm-up steps were asked for; expected at least 1 and 0.")
    config = DataConfig.model_validate({"train": list(data), "images": images})
    check_paths(config)
    encoder = encoder_of(vlm)
    prepared = prepare(config, encoder, method="sft")
    order = Random(f"layers/{seed}").sample(range(len(prepared.rows)), len(prepared.rows))
    collator = Collator(encoder)
    scored = score_layers(vlm.model, batches(prepared.rows, order[:rows], collator, BATCH))
    scores = {"gradient": scored.gradient, "fisher": scored.fisher, "similarity": scored.similarity}
    if warmup:
        lora = build_lora(vlm.model, range(vlm.num_layers), {"lora_dropout": 0.0})
        taken = [order[n % len(order)] for n in range(warmup * BATCH)]
        some = batches(prepared.rows, taken, collator, BATCH)
        scores["warmup"] = warmup_scores(vlm.model, lora, some, WARMUP_RATE, seed)
    return Survey(scores, scored.modules, scored.rows)


def save_survey(path: Path, scored: Survey, choices: Sequence[Choice], shift: Shift | None) -> None:
    """Write all of it as JSON, whole or not at all."""
    content = {
        "schema": 1,
        **asdict(scored),
        "choices": [asdict(choice) for choice in choices],
        "shift": None if shift is None else shift.model_dump(),
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
