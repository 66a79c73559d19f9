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
from vfl.train.grpo.arguments import rounds
from vfl.train.grpo.config import GrpoConfig
from vfl.train.layers.thin import thin_reason
from vfl.train.preflight.audit import LossAudit, audit_loss
from vfl.train.preflight.facts import (
    TRAINING,
    AfterImageFacts,
    ArmFacts,
    MemoryFacts,
    ModelFacts,
    OrderFacts,
    Preflight,
    TowerModules,
    estimate_time,
)
from vfl.train.preflight.lengths import length_histogram
from vfl.train.preflight.processes import launch_facts
from vfl.train.preflight.sampled_round import Round, forget_round, sample_round
from vfl.train.recipe import Recipe
from vfl.train.rows.packs import PackedCollator
from vfl.train.rows.table import answers_of
from vfl.train.trainers import LayerGRPOTrainer


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
    sampled = _sampled(recipe, parts) if recipe.method == "grpo" else None
    audit = audit_first_batch(recipe, parts) if sampled is None else None
    choice, memory, seconds, short = _probe(recipe, parts, sampled)
    launch = launch_facts(trainer.args, len(parts.prepared.rows), len(parts.packs or ()), fsdp=recipe.fsdp)
    lengths = length_histogram(
        parts.prepared.text, parts.prepared.image, recipe.data.max_length, parts.prepared.rows["where"]
    )
    estimate = None
    if seconds is not None:
        step = seconds * launch.accumulation
        evaluation_seconds, evaluations = (0.0, 0) if evaluation is None else evaluation.cost(launch.total_steps)
        shared = launch.world_size if evaluation is not None and evaluation.alone else 1
        estimate = estimate_time(
            step,
            launch.total_steps,
            evaluation_seconds=evaluation_seconds / shared,
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
        packing=None if parts.packs is None else parts.packs.sentence(),
        order=None if parts.order is None else OrderFacts(readers=parts.order.readers, sentence=parts.order.sentence()),
        after_image=short,
        versions=versions(*TRAINING),
        audit=audit,
        grpo=None if sampled is None else sampled.facts,
        lengths=lengths,
        memory=memory,
        time=estimate,
        notes=() if parts.packs is None else parts.packs.warnings(),
    )
    return flight, choice.checkpointing


def audit_first_batch(recipe: Recipe, parts: Assembly) -> LossAudit:
    """Decode what the first rows are trained on."""
    rows = parts.prepared.rows
    first = [rows[n] for n in range(min(len(rows), parts.trainer.args.per_device_train_batch_size))]
    # whole answers: which of their tokens count is another matter
    batch = parts.trainer.data_collator([{**row, "weights": None} for row in first])
    mask = batch["labels"] != -100 if recipe.method == "sft" else batch["completion_mask"] > 0
    sides = (False, True) if recipe.method == "dpo" else (False,)
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


def _sampled(recipe: Recipe, parts: Assembly) -> Round:
    """A round of answers, sampled from the model as it is."""
    rows = parts.prepared.rows
    longest = sorted(range(len(rows)), key=lambda n: -rows[n]["length"])
    rewards = (recipe.grpo or GrpoConfig()).rewards
    sampled = sample_round(parts.trainer, parts.vlm, rows, longest, rewards)
    _forget(parts.trainer)
    return sampled


def _probe(
    recipe: Recipe, parts: Assembly, sampled: Round | None
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
    trainer = parts.trainer
    device = trainer.args.device
    batch, count, longest = _longest_batch(parts, sampled)
    shortened = trainer.shortened
    share = None if shortened is None else share_after_image(trainer, parts.vlm, batch)
    step = probe_step(trainer, batch, sampled=sampled is not None)
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
    peak = memory.peak_bytes
    if sampled is not None:
        peak, longest = max(peak, sampled.memory.peak_bytes), longest + trainer.args.max_completion_length
        seconds += sampled.seconds / rounds(trainer.args)
    facts = MemoryFacts(
        peak_bytes=peak,
        device_bytes=torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None,
        how=memory.how,
        rows=count,
        tokens=longest,
        packed=parts.packs is not None,
    )
    return (
        choice,
        facts,
        seconds,
        None if share is None else AfterImageFacts(whole_every=shortened.whole_every, tokens=share),
    )


def _longest_batch(parts: Assembly, sampled: Round | None) -> tuple[dict[str, torch.Tensor], int, int]:
    """The batch of a process that takes most memory; its rows or packs, and the tokens of the longest.

    Args:
        sampled: a round of answers, whose questions are the longest; the length is then that of the question.
    """
    trainer, rows, packs = parts.trainer, parts.prepared.rows, parts.packs
    size = trainer.args.per_device_train_batch_size
    if packs is not None:
        numbers = packs.longest(size)
        collate = PackedCollator(trainer.data_collator)
        return collate([packs[number] for number in numbers]), len(numbers), packs.tokens[numbers[0]]
    lengths = rows["length"][:]
    longest = sorted(range(len(rows)), key=lambda n: -lengths[n])[:size]
    anchors = range(len(rows) - parts.prepared.facts.anchors, len(rows))
    if anchors and len(longest) > 1 and not set(longest) & set(anchors):  # as most batches have
        longest[-1] = max(anchors, key=lambda n: lengths[n])
    batch = trainer.data_collator([rows[n] for n in longest]) if sampled is None else sampled.batch
    return batch, len(longest), lengths[longest[0]]


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


def probe_step(
    trainer: Any, batch: dict[str, torch.Tensor], number: int = 0, *, sampled: bool = False
) -> Callable[[], None]:
    """One forward and backward pass, as in the training step of this number.

    Args:
        sampled: whether the batch is one of sampled answers, which is on its device already.
    """
    if sampled:  # Trainer sets it when training begins
        trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps

    def step() -> None:
        trainer.model.train()
        inputs = dict(batch) if sampled else trainer._prepare_inputs(dict(batch))
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
    if isinstance(trainer, LayerGRPOTrainer):
        forget_round(trainer)


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
        attention=recipe.attn_implementation,
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
