"""Prompts through the joint sweep, a row a plan: plans that read no other image are the same in several metrics."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch

from vfl.engine.joint_sweep import Swept, sweep_all
from vfl.engine.plan import Plan
from vfl.models.vlm import VLM


@dataclass(frozen=True)
class SweptRow:
    """A plan's answer, its tokens, (vocabulary,) logits of the first, and the right answer's log-probability."""

    text: str
    ids: list[int]
    logits: torch.Tensor
    logprob: float


def swept_rows(vlm: VLM, prompts: Sequence[Swept], *, keeps: bool) -> list[list[SweptRow]]:
    """What each plan of each prompt gives; a model that keeps its prompts keeps what the plans among them give.

    Args:
        vlm: the model.
        prompts: with one answer each, that of the right one.
        keeps: plans that read no other image may be kept, as nothing else is edited.
    """
    rows = [(at, plan) for at, one in enumerate(prompts) for plan in one.plans]

    def make(places: list[int]) -> list[SweptRow]:
        plans: dict[int, list[Plan]] = {}
        for place in places:
            plans.setdefault(rows[place][0], []).append(rows[place][1])
        results = sweep_all(vlm, [replace(prompts[at], plans=chosen) for at, chosen in plans.items()])
        return [
            # a copy of the logits: a row that is kept would hold those of all plans
            SweptRow(result.texts[row], result.token_ids[row], logits.clone(), float(result.answer_logprobs[row, 0]))
            for result in results
            for row, logits in enumerate(result.logits)
        ]

    def named(one: Swept, plan: Plan) -> Hashable | None:
        if not keeps or any(image_cache is not None for image_cache in plan.reads.values()):
            return None
        return "swept", frozenset(plan.reads), *one.answers, one.max_new_tokens

    wanted = [(prompts[at].encoded, named(prompts[at], plan)) for at, plan in rows]
    found = iter(vlm.once(wanted, make))
    return [[next(found) for _ in one.plans] for one in prompts]
