"""Which layers the training rows ask for: a rule's choice, saved in the run's folder with every layer's scores."""

import json
import logging
import math
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Literal, Self

from datasets import Dataset
from pydantic import BaseModel, ConfigDict, Field

from vfl.engine.operations import relative_step
from vfl.errors import InputError
from vfl.functionmap import FunctionMap, ModelId
from vfl.io.atomic import replacing
from vfl.io.layers import layer_list
from vfl.models.conversation import ConversationEncoder
from vfl.models.vlm import VLM
from vfl.train.adapter.lora import build_lora
from vfl.train.layers.choice import LayerChoice
from vfl.train.layers.rules import highest
from vfl.train.layers.scores import Tensors, score_layers
from vfl.train.layers.shift import Shift, shift_of
from vfl.train.layers.warmup import SHARE, warmup_scores
from vfl.train.rows.collate import Collator

logger = logging.getLogger(__name__)

LAYERS = "layers.json"
BATCH = 8  # rows that are scored together


class LayerDecision(BaseModel):
    """What a rule chose.

    Attributes:
        key: hash of all that it depends on.
        layers: ascending.
        scores: of every rule that was worked out, one number a layer, higher for layers to train.
        modules: the gradient rule for each module of a layer by its name.
        rows: how many training rows were read.
        step: cost of a step over that of training all layers.
        reason: one paragraph for a person.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    key: str
    rule: str
    layers: tuple[int, ...]
    scores: dict[str, tuple[float, ...]]
    modules: dict[str, tuple[float, ...]]
    rows: int
    step: float
    shift: Shift | None = None
    reason: str

    def save(self, path: Path) -> None:
        """Write layers.json, whole or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=1, by_alias=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """An earlier decision, or None where there is none that this version can read."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            return None


def decide(
    choice: LayerChoice,
    vlm: VLM,
    model: ModelId,
    rows: Dataset,
    encoder: ConversationEncoder,
    folder: Path,
    *,
    lora: dict[str, Any],
    steps: int,
    learning_rate: float,
    batch: int,
    seed: int,
    barred: Sequence[int] = (),
) -> LayerDecision:
    """Choose by the rule; the same rows, model and settings give the choice that lies in `folder` already.

    Args:
        choice: with a rule that reads data.
        vlm: the plain model.
        rows: the training rows; `choice.rows` of them are read, drawn with `seed`.
        folder: of the run, for layers.json.
        lora: the recipe's LoRA options, for a warm-up.
        steps, learning_rate, batch: of the run; a warm-up takes a share of its steps.
        barred: layers that may not be trained.

    Raises:
        InputError: for a count that the model does not have, and when no layer is left to choose.
    """
    wanted = choice.model_dump_json(by_alias=True)
    facts = [wanted, model.model_dump_json(), json.dumps(lora, default=str), str(rows._fingerprint)]
    facts += [str((len(rows), steps, learning_rate, batch, seed, tuple(barred)))]
    key = sha256("\n".join(facts).encode()).hexdigest()
    before = LayerDecision.load(folder / LAYERS)
    if before is not None and before.key == key:
        return before
    chosen = Random(f"layers/{seed}").sample(range(len(rows)), min(choice.rows, len(rows)))
    collator = Collator(encoder)
    scored = score_layers(vlm.model, batches(rows, chosen, collator, BATCH))
    scores = {"gradient": scored.gradient, "fisher": scored.fisher, "similarity": scored.similarity}
    if choice.rule == "warmup":
        order = Random(f"warmup/{seed}")
        length = max(1, math.ceil(SHARE * steps)) * batch
        taken = [n for _ in range(math.ceil(length / len(rows))) for n in order.sample(range(len(rows)), len(rows))]
        everything = build_lora(vlm.model, range(model.num_layers), lora)
        some = batches(rows, taken[:length], collator, batch)
        scores["warmup"] = warmup_scores(vlm.model, everything, some, learning_rate, seed)
    layers = pick(choice, scores, model, barred)
    shift = _shift(choice, model, scores["gradient"])
    cost = relative_step(layers, model.num_layers)
    decision = LayerDecision(
        key=key,
        rule=str(choice.rule),
        layers=tuple(layers),
        scores=scores,
        modules=scored.modules,
        rows=scored.rows,
        step=cost,
        shift=shift,
        reason=_reason(choice, layers, model, scored.rows, cost, shift),
    )
    decision.save(folder / LAYERS)
    return decision


def pick(choice: LayerChoice, scores: dict[str, tuple[float, ...]], model: ModelId, barred: Sequence[int]) -> list[int]:
    """The rule's layers.

    Raises:
        InputError: for a count that the model does not have, and when no layer is left.
    """
    layers = highest(scores[str(choice.rule)], choice.number(model.num_layers), barred)
    if not layers:
        raise InputError(
            f"protect bars all {model.num_layers} layers of {model.id}, so rule {choice.rule} has none to choose from. "
            "Protect fewer functions, or set protect.how: scale."
        )
    return layers


def batches(rows: Dataset, chosen: Sequence[int], collator: Collator, size: int) -> list[Tensors]:
    """Rows by number as batches with labels."""
    return [collator([rows[n] for n in chosen[start : start + size]]) for start in range(0, len(chosen), size)]


def _shift(choice: LayerChoice, model: ModelId, gradient: Sequence[float]) -> Shift | None:
    if choice.map is None:
        return None
    fmap = FunctionMap.load(choice.map).check_model(**dict(model), allow_other_model=choice.allow_other_model)
    return shift_of(gradient, fmap.layers_of(choice.functions), choice.functions)


_WORDS = {
    "gradient": "where the loss' gradient is largest for the size of the weights",
    "fisher": "where the squared gradients are largest",
    "similarity": "that change their input most",
    "warmup": "that a short run of LoRA in all layers changed most",
}


def _reason(
    choice: LayerChoice, layers: Sequence[int], model: ModelId, rows: int, cost: float, shift: Shift | None
) -> str:
    """One paragraph: what was chosen, why, and what it costs."""
    text = (
        f"Layers {layer_list(layers)} of {model.num_layers}: of {rows} training rows, those "
        f"{_WORDS[str(choice.rule)]}. They hold {len(layers) / model.num_layers:.0%} of full LoRA's parameters in the "
        f"decoder, and a step costs about {cost:.2f} of one on all layers, since the backward pass ends at layer "
        f"{min(layers)}."
    )
    return text if shift is None else f"{text} {shift.sentence}"
