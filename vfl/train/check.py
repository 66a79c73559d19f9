"""The preflight of an assembled run: what is known before the first step, measured on its own batches."""

import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from vfl.engine.memory import is_out_of_memory
from vfl.errors import InputError
from vfl.io.versions import versions
from vfl.loading.beds import bed_of
from vfl.train.adapter.files import adapted_modules
from vfl.train.adapter.lora import DEFAULTS
from vfl.train.assemble import Assembly
from vfl.train.backward.memory import (
    CheckpointingChoice,
    StepMemory,
    choose_checkpointing,
    optimizer_bytes,
    step_memory,
    untouched_by_step,
)
from vfl.train.backward.truncate import truncate
from vfl.train.callback.evaluation import EvaluationCallback
from vfl.train.check_split import share_after_image
from vfl.train.layers.thin import thin_reason
from vfl.train.preflight.audit import LossAudit, audit_loss
from vfl.train.preflight.facts import (
    TRAINING,
    AfterImageFacts,
    ArmFacts,
    MemoryFacts,
    ModelFacts,
    Preflight,
    TowerModules,
    estimate_time,
)
from vfl.train.preflight.lengths import length_histogram
from vfl.train.preflight.processes import launch_facts
from vfl.train.recipe import Recipe
from vfl.train.rows.table import answers_of


def preflight_of(
    recipe: Recipe, parts: Assembly, evaluation: EvaluationCallback | None = None
) -> tuple[Preflight, bool]:
    """The preflight, and whether the layers in the backward pass are to be checkpointed.

    Args:
        recipe: what is asked for.
        parts: what was made of it.
        evaluation: what evaluates during the run, for the estimate of its time.

    Raises:
        InputError: when the loss is not on the answers.
    """
    trainer = parts.trainer
    audit = audit_first_batch(recipe, parts)
    choice, memory, seconds, short = _probe(recipe, parts)
    launch = launch_facts(trainer.args, len(parts.prepared.rows))
    lengths = length_histogram(
        parts.prepared.text, parts.prepared.image, recipe.data.max_length, parts.prepared.rows["where"]
    )
    estimate = None
    if seconds is not None:
        step = seconds * launch.accumulation
        evaluation_seconds, evaluations = (0.0, 0) if evaluation is None else evaluation.cost(launch.total_steps)
        estimate = estimate_time(
            step,
            launch.total_steps,
            evaluation_seconds=evaluation_seconds / launch.world_size,
            evaluations=evaluations,
            how="steps as long as one on the longest batch"
            + (", evaluations as long as one of its batches says" if evaluations else ""),
        )
    flight = Preflight(
        method=recipe.method,
        model=_model_facts(parts, recipe),
        arm=_arm_facts(recipe, parts),
        adapted=tuple(
            TowerModules(
                tower=tower.tower,  # type: ignore[arg-type]
                modules=len(tower.modules),
                parameters=tower.parameters,
                bytes=tower.num_bytes,
                layers=tower.layers,
                learning_rate=recipe.learning_rates.get(tower.tower),  # type: ignore[arg-type]
            )
            for tower in adapted_modules(parts.peft_model)
        ),
        launch=launch,
        data=parts.prepared.facts,
        checkpointing=choice.reason,
        after_image=short,
        versions=versions(*TRAINING),
        audit=audit,
        lengths=lengths,
        memory=memory,
        time=estimate,
    )
    return flight, choice.checkpointing


def audit_first_batch(recipe: Recipe, parts: Assembly) -> LossAudit:
    """Decode what the first rows are trained on."""
    rows = parts.prepared.rows
    first = [rows[n] for n in range(min(len(rows), parts.trainer.args.per_device_train_batch_size))]
    # whole answers: which of their tokens count is another matter
    batch = parts.trainer.data_collator([{**row, "weights": None} for row in first])
    mask = batch["labels"] != -100 if recipe.method == "sft" else batch["completion_mask"] > 0
    sides = (False,) if recipe.method == "sft" else (False, True)
    checked_sides = [(row, rejected) for rejected in sides for row in first]
    count = len(checked_sides)  # a blank row that was added has no answers to expect
    return audit_loss(
        parts.vlm.tokenizer,
        batch["input_ids"][:count],
        mask[:count],
        image_token_ids={parts.vlm.parts.image_token_id},
        end_ids=parts.vlm.end_ids(),
        expected=[answers_of(row, rejected=rejected) for row, rejected in checked_sides],
        attention_mask=batch["attention_mask"][:count],
        where=[row["where"] + (" (rejected)" if rejected else "") for row, rejected in checked_sides],
    )


def _probe(
    recipe: Recipe, parts: Assembly
) -> tuple[CheckpointingChoice, MemoryFacts | None, float | None, AfterImageFacts | None]:
    """One step on the longest batch: its memory and time, what they say about checkpointing, and how short it gets."""
    asked = recipe.checkpointing
    if parts.zero_stage == 3:
        # The weights are in pieces until DeepSpeed's engine is up, so no step can be tried before.
        on = asked != "off"
        reason = f"Checkpointing {'on' if on else 'off'}" + (
            ": no step can be tried under ZeRO-3 before the run begins." if asked == "auto" else ", as asked."
        )
        return CheckpointingChoice(on, reason, None), None, None, None
    trainer, rows = parts.trainer, parts.prepared.rows
    device = trainer.args.device
    longest = sorted(range(len(rows)), key=lambda n: -rows[n]["length"])[: trainer.args.per_device_train_batch_size]
    anchors = range(len(rows) - parts.prepared.facts.anchors, len(rows))
    if anchors and len(longest) > 1 and not set(longest) & set(anchors):  # as most batches have
        longest[-1] = max(anchors, key=lambda n: rows[n]["length"])
    batch = trainer.data_collator([rows[n] for n in longest])
    shortened = trainer.shortened
    share = None if shortened is None else share_after_image(trainer, parts.vlm, batch)
    step = probe_step(trainer, batch)
    if asked == "auto":
        choice = choose_checkpointing(parts.peft_model, step, device, reserve=optimizer_bytes(parts.peft_model))
        if choice.checkpointing and shortened is not None and not shortened.whole_every:
            raise InputError(f"{choice.reason} {_NO_ROOM}")
    else:
        choice = CheckpointingChoice(asked == "on", f"Checkpointing {asked}, as asked.", None)
    with untouched_by_step(parts.peft_model), truncate(parts.peft_model, choice.checkpointing):
        memory, seconds = _measured(step, device, None if choice.checkpointing else choice.memory)
        if shortened is not None and shortened.whole_every > 1:
            short_memory, short_seconds = _short_step(trainer, batch)
            memory = max(memory, short_memory, key=lambda each: each.peak_bytes)
            part = 1 / shortened.whole_every
            seconds = part * seconds + (1 - part) * short_seconds
    _forget(trainer)
    facts = MemoryFacts(
        peak_bytes=memory.peak_bytes,
        device_bytes=torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None,
        how=memory.how,
        rows=len(longest),
        tokens=rows[longest[0]]["length"],
    )
    return (
        choice,
        facts,
        seconds,
        None if share is None else AfterImageFacts(whole_every=shortened.whole_every, tokens=share),
    )


_NO_ROOM = (
    "A step whose backward pass ends at the image goes without checkpointing: lower "
    "trainer.per_device_train_batch_size, or set backward: whole."
)


def _measured(step: Callable[[], None], device: torch.device, memory: StepMemory | None) -> tuple[StepMemory, float]:
    """Memory of a step, unless it is known, and its seconds."""
    if memory is None:
        memory = step_memory(step, device)
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return memory, time.perf_counter() - start


def _short_step(trainer: Any, batch: dict[str, torch.Tensor]) -> tuple[StepMemory, float]:
    """Memory and seconds of a step whose backward pass ends at the image."""
    try:
        return _measured(probe_step(trainer, batch, number=1), trainer.args.device, None)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    raise InputError(f"A step on the longest batch runs out of memory. {_NO_ROOM}")


def probe_step(trainer: Any, batch: dict[str, torch.Tensor], number: int = 0) -> Callable[[], None]:
    """One forward and backward pass, as in the training step of this number."""

    def step() -> None:
        trainer.model.train()
        inputs = trainer._prepare_inputs(dict(batch))
        before, trainer.state.global_step = trainer.state.global_step, number
        try:
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(trainer.model, inputs)
        finally:
            trainer.state.global_step = before
        loss.backward()
        trainer.model.zero_grad(set_to_none=True)

    return step


def _forget(trainer: Any) -> None:
    """TRL averages what its loss measured since the last log, and counts tokens: not those of the probe."""
    trainer._metrics["train"].clear()
    trainer._total_train_tokens = 0


def _model_facts(parts: Assembly, recipe: Recipe) -> ModelFacts:
    model = parts.vlm.model
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    frozen = [p for p in model.parameters() if id(p) not in trained]
    sizes = [(int(getattr(p, "ds_numel", p.numel())), p.element_size()) for p in frozen]
    return ModelFacts(
        id=parts.model_id.id,
        on_hub=not Path(parts.vlm.model_id).is_dir(),
        family=parts.vlm.family.name,
        num_layers=parts.vlm.num_layers,
        dtype=str(model.dtype).removeprefix("torch."),
        attention=recipe.attention,
        parameters=sum(count for count, _ in sizes),
        bytes=sum(count * size for count, size in sizes),
        revision=parts.model_id.revision,
        weights_sha256=parts.model_id.weights_sha256,
        min_pixels=parts.model_id.min_pixels,
        max_pixels=parts.model_id.max_pixels,
        test_bed=bed_of(parts.vlm.model_id) is not None,
    )


def _arm_facts(recipe: Recipe, parts: Assembly) -> ArmFacts:
    choice = recipe.layers
    return ArmFacts(
        arm=choice.rule or choice.preset or ("list" if choice.layers and choice.arm == "function" else choice.arm),
        layers=tuple(parts.layers),
        functions=choice.functions,
        map_path=None if choice.map is None else str(choice.map),
        map_sha256=None if choice.map is None else _hash(choice.map),
        rank=parts.lora.r,
        reason=_reason(recipe, parts),
        protected=None if parts.protection is None else parts.protection.sentence,
        frozen=None if parts.trainer.freezing is None else parts.trainer.freezing.sentence(parts.layers),
    )


def _hash(path: Path) -> str:
    file = path / "map.json" if path.is_dir() else path
    return sha256(file.read_bytes()).hexdigest()


def _reason(recipe: Recipe, parts: Assembly) -> str | None:
    """Why a rule chose these layers."""
    if recipe.layers.rule == "auto":
        whole = int(recipe.lora.get("r", DEFAULTS["r"]))
        return thin_reason(parts.vlm.num_layers, parts.lora.r, whole)
    return None if parts.decision is None else parts.decision.reason
