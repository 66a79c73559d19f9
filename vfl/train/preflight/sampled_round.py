"""One round of sampled answers before the first step: what it takes, what the model says, and what that earns."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
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
from vfl.train.grpo.config import RewardPart
from vfl.train.grpo.rewards import reward_of
from vfl.train.preflight.audit import tail
from vfl.train.preflight.facts import GrpoFacts, SampledQuestion

SHOWN = 3  # questions with their answers in preflight.json
HALF, WHOLE = 6e-2, 1e-3
"""Mean relative difference of log-probabilities by two passes that differ in padding alone, in 16 bits and in more."""
OF_IMAGES = (
    *("pixel_values", "image_grid_thw", "pixel_attention_mask", "spatial_shapes", "image_sizes"),
    *("token_type_ids", "mm_token_type_ids", "image_position_ids", "num_images", "num_tiles"),
)


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


def sample_round(
    trainer: Any, vlm: VLM, rows: Dataset, longest: Sequence[int], rewards: dict[RewardPart, float]
) -> Round:
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
        try:
            output.update(trainer._generate_and_score_completions(questions))
        # It has branches for families that it knows, and no word for others.
        except (TypeError, AttributeError, KeyError, IndexError, ValueError) as error:
            raise InputError(
                f"TRL's GRPO can't sample from {type(vlm.model).__name__}: {' '.join(str(error).split())}. Use method: "
                "sft or dpo."
            ) from error

    with untouched_by_step(trainer.model):
        trainer.model.train()
        start = time.perf_counter()
        memory = step_memory(sample, args.device)
        seconds = time.perf_counter() - start
    _check_predictions(trainer, vlm, questions, output)
    said = _said(trainer, output)
    earned = [
        sum(weight * (reward_of(part, row["asked"], text, vlm.family) or 0.0) for part, weight in rewards.items())
        for row, text in zip(questions, said, strict=True)
    ]
    facts = GrpoFacts(
        generations=group,
        together=sampled_together(args) * group,
        longest=args.max_completion_length,
        temperature=args.temperature,
        beta=args.beta,
        loss=args.loss_type,
        rewards={str(part): weight for part, weight in rewards.items()},
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


def _check_predictions(trainer: Any, vlm: VLM, questions: Sequence[dict[str, Any]], output: dict[str, Any]) -> None:
    """Questions are written as in an evaluation, and the loss reads the probabilities that the model has there."""
    row = len(questions) - 1  # the shortest question, which is padded most
    inputs = asked_alone(vlm, questions[row]["prompt"])
    theirs = output["prompt_ids"][row][output["prompt_mask"][row].bool()].tolist()
    if (ours := inputs["input_ids"][0].tolist()) != theirs:
        raise InputError(
            f"TRL writes questions to {vlm.family.name} otherwise than they are asked in an evaluation ({len(theirs)} "
            f"tokens, {len(ours)} there), so what is learned would not be what is measured: use method: sft or dpo."
        )
    said = output["completion_ids"][row][output["completion_mask"][row].bool()]
    with untouched(vlm):
        expected = log_probs(vlm, inputs, said, trainer.args.temperature)
        read = log_probs_of_loss(trainer, output)[row, : len(said)]
    difference = (read - expected).abs() / expected.abs().clamp(min=1)
    half = vlm.dtype in (torch.float16, torch.bfloat16) or trainer.args.mixed_precision != "no"
    if bool(difference.mean() > (HALF if half else WHOLE)):
        raise InputError(
            f"TRL's GRPO reads other probabilities from {type(vlm.model).__name__} than the model has alone (they "
            f"differ by {float(difference.max()):.2g}): use method: sft or dpo."
        )


def asked_alone(vlm: VLM, turns: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A question as an evaluation asks it, without padding."""
    messages = tuple({"role": turn["role"], "content": [_bare(entry) for entry in turn["content"]]} for turn in turns)
    opened = tuple(partial(_same, image) for turn in turns for image in images_of(turn))
    inputs = encode_batch(vlm, [EvalItem("question", "grpo", messages, opened, "", "exact", 1)], pad=False).inputs
    return {name: value.to(vlm.device) for name, value in inputs.items()}


def log_probs(vlm: VLM, inputs: dict[str, torch.Tensor], said: torch.Tensor, temperature: float) -> torch.Tensor:
    """(N,) log-probabilities of the N tokens of an answer, by a plain forward pass of its question."""
    shape, length = inputs["input_ids"].shape, inputs["input_ids"].shape[1]
    whole = {
        name: torch.nn.functional.pad(value, (0, len(said)), value=int(name == "attention_mask"))
        if value.shape == shape
        else value
        for name, value in inputs.items()
    }
    whole["input_ids"] = torch.cat([inputs["input_ids"], said[None]], dim=1)
    logits = vlm.model(**whole).logits[0, length - 1 : length - 1 + len(said)]
    return (logits.float() / temperature).log_softmax(-1).gather(1, said[:, None])[:, 0]


def log_probs_of_loss(trainer: Any, output: dict[str, Any]) -> torch.Tensor:
    """(B, C) log-probabilities of sampled answers, as the loss reads them."""
    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
    mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
    inputs = {name: output[name] for name in OF_IMAGES if name in output}
    length, size = output["completion_ids"].shape[1], trainer.args.per_device_train_batch_size
    read = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, length, batch_size=size, **inputs)
    scores: torch.Tensor = read[0]
    return scores


def _same(image: Image.Image) -> Image.Image:
    return image


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
