"""One round of sampled answers before the first step: what it takes, what the model says, and what that earns."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from vfl.engine.untouched import untouched
from vfl.errors import InputError
from vfl.evaluate.batches import encode_batch
from vfl.evaluate.items import EvalItem
from vfl.evaluate.padding import pads_left
from vfl.models.turns import images_of
from vfl.models.vlm import VLM
from vfl.train.backward.memory import StepMemory, step_memory, untouched_by_step
from vfl.train.grpo.arguments import sampled_together
from vfl.train.grpo.rewards import reward_of
from vfl.train.preflight.audit import tail
from vfl.train.preflight.facts import GrpoFacts, SampledQuestion

SHOWN = 3  # questions with their answers in preflight.json


@dataclass(frozen=True)
class Round:
    """A sampled round.

    Attributes:
        batch: a batch of the round as the loss takes it, with answers as long as they may be.
        seconds: that sampling took.
        memory: at its peak.
        facts: for the preflight.
    """

    batch: dict[str, Any]
    seconds: float
    memory: StepMemory
    facts: GrpoFacts


def sample_round(trainer: Any, vlm: VLM, rows: Dataset, longest: Sequence[int], rewards: dict[str, float]) -> Round:
    """Sample this process' answers of a round to the longest questions; model, random states and metrics stay.

    Args:
        trainer: a GRPOTrainer with its collator.
        vlm: its model.
        rows: the training set.
        longest: numbers of its rows, the longest first; as many are asked as a round has.
        rewards: weight of each part.

    Raises:
        InputError: where the trainer would ask otherwise than an evaluation does.
    """
    args = trainer.args
    group, size = args.num_generations, args.per_device_train_batch_size
    count = -(-size * args.steps_per_generation // group)  # questions
    asked = [longest[n % len(longest)] for n in range(count)]
    questions = trainer.data_collator([rows[number] for number in asked for _ in range(group)])
    _check_padding(trainer, vlm, questions)
    output: dict[str, Any] = {}

    def sample() -> None:
        output.update(trainer._generate_and_score_completions(questions))

    with untouched_by_step(trainer.model):
        trainer.model.train()
        start = time.perf_counter()
        memory = step_memory(sample, args.device)
        seconds = time.perf_counter() - start
    _check_prompts(vlm, questions, output)
    said = _said(trainer, output)
    earned = [
        sum(weight * (reward_of(part, row["asked"], text, vlm.family) or 0.0) for part, weight in rewards.items())  # type: ignore[arg-type]
        for row, text in zip(questions, said, strict=True)
    ]
    facts = GrpoFacts(
        generations=group,
        together=sampled_together(args) * group,
        longest=args.max_completion_length,
        temperature=args.temperature,
        beta=args.beta,
        loss=args.loss_type,
        rewards=rewards,
        sampled=len(said),
        reward=sum(earned) / len(earned),
        questions=tuple(
            SampledQuestion(
                where=rows[asked[n]]["where"],
                prompt_tail=_tail(vlm, output, n * group),
                expected=questions[n * group]["asked"].answer.text,
                match=questions[n * group]["asked"].answer.match,
                sampled=tuple(said[n * group : (n + 1) * group]),
                rewards=tuple(earned[n * group : (n + 1) * group]),
            )
            for n in range(min(SHOWN, count))
        ),
    )
    return Round(_longest(_first(output, size), args.max_completion_length, vlm), seconds, memory, facts)


def forget_round(trainer: Any) -> None:
    """TRL's counts and texts of what was sampled before training."""
    trainer.state.num_input_tokens_seen = 0
    for name in ("prompt", "completion", "advantages", "images"):
        trainer._logs[name].clear()
    trainer._logs["rewards"].clear()


def _check_padding(trainer: Any, vlm: VLM, questions: Sequence[dict[str, Any]]) -> None:
    with untouched(vlm):
        if sampled_together(trainer.args) > 1 and not pads_left(vlm):
            raise InputError(
                f"grpo pads questions of different lengths on the left, and {vlm.family.name} then answers otherwise "
                "than to each alone: use method: sft."
            )


def _check_prompts(vlm: VLM, questions: Sequence[dict[str, Any]], output: dict[str, Any]) -> None:
    """What was sampled from is, token by token, what an evaluation asks."""
    images = [image for turn in questions[0]["prompt"] for image in images_of(turn)]
    messages = tuple(
        {"role": turn["role"], "content": [_bare(entry) for entry in turn["content"]]}
        for turn in questions[0]["prompt"]
    )
    opened = tuple(lambda image=image: image for image in images)
    item = EvalItem("question", "grpo", messages, opened, "", "exact", 1)
    ours = encode_batch(vlm, [item], pad=False).inputs["input_ids"][0].tolist()
    theirs = output["prompt_ids"][0][output["prompt_mask"][0].bool()].tolist()
    if ours != theirs:
        raise InputError(
            f"TRL writes questions to {vlm.family.name} otherwise than they are asked in an evaluation ({len(theirs)} "
            f"tokens, {len(ours)} there), so what is learned would not be what is measured: use method: sft."
        )


def _bare(entry: dict[str, Any]) -> dict[str, Any]:
    return {"type": "image"} if entry["type"] == "image" else entry


def _said(trainer: Any, output: dict[str, Any]) -> list[str]:
    texts: list[str] = trainer.processing_class.batch_decode(
        [
            ids[mask.bool()].tolist()
            for ids, mask in zip(output["completion_ids"], output["completion_mask"], strict=True)
        ],
        skip_special_tokens=True,
    )
    return texts


def _tail(vlm: VLM, output: dict[str, Any], row: int) -> str:
    ids = output["prompt_ids"][row][output["prompt_mask"][row].bool()].tolist()
    return tail(vlm.tokenizer, ids, {vlm.parts.image_token_id})


def _first(output: dict[str, Any], size: int) -> dict[str, Any]:
    """The first rows of a round, as GRPOTrainer cuts it into batches."""
    split = split_pixel_values_by_grid(output)
    whole = {
        name: value[:size] if isinstance(value, list) or value.ndim > 0 else value for name, value in split.items()
    }
    batch: dict[str, Any] = unsplit_pixel_values_by_grid(whole)
    return batch


def _longest(batch: dict[str, Any], length: int, vlm: VLM) -> dict[str, Any]:
    """The batch as if no answer had ended before it had to."""
    before = batch["completion_ids"].shape[1]

    def filled(value: torch.Tensor, fill: float) -> torch.Tensor:
        return torch.nn.functional.pad(value, (0, length - before), value=fill)

    changed = {
        "completion_ids": filled(batch["completion_ids"], vlm.answer_ids("many")[0]),
        "completion_mask": torch.ones_like(filled(batch["completion_mask"], 1)),
    }
    for name in ("ref_per_token_logps", "old_per_token_logps", "token_type_ids", "mm_token_type_ids"):
        if name in batch:
            changed[name] = filled(batch[name], 0)
    return {**batch, **changed}
