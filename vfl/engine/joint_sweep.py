"""Sweeps of several prompts at once: rows of prompts of one shape are one batch, each with its own image before it.

A small model, or a GPU with a short question, spends its time on starting kernels: they are started once for all.
Results are those of `sweep` on each prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from vfl.engine.image_cache import ImageCache, can_share
from vfl.engine.layer_trace import LayerTrace, trace_after
from vfl.engine.memory import guess_row_limit, in_parts
from vfl.engine.plan import Plan
from vfl.engine.row_start import RowStart, row_start
from vfl.engine.rows import Context
from vfl.engine.sweep import Row, SweepResult, check_plans, run_plans, sorted_plans, sweep
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM


@dataclass(frozen=True)
class Swept:
    """One prompt of a joint sweep.

    Attributes:
        encoded: the prompt.
        plans: what its text reads, a row each.
        answer: scored for every plan.
        max_new_tokens: of the generated answers; 0 for none.
        own: the prompt's own image cache.
    """

    encoded: Encoded
    plans: Sequence[Plan]
    answer: str
    max_new_tokens: int
    own: ImageCache


@torch.no_grad()
def sweep_all(vlm: VLM, prompts: Sequence[Swept]) -> list[SweepResult]:
    """As `sweep` of each prompt, in order; those of one shape and bound are swept together.

    Raises:
        InputError: for image caches whose vision tokens don't fit, or layers the model lacks.
    """
    results: dict[int, SweepResult] = {}
    for group in _groups(vlm, prompts):
        asked = [prompts[at] for at in group]
        if len(asked) > 1:
            start = row_start(vlm, asked[0].encoded, own=asked[0].own)
            if all(added is None for added in start.trace.between):
                results |= zip(group, _together(vlm, asked, start), strict=True)
                continue
        results |= {at: _alone(vlm, prompts[at]) for at in group}
    return [results[at] for at in range(len(prompts))]


def _alone(vlm: VLM, asked: Swept) -> SweepResult:
    return sweep(
        vlm,
        asked.encoded,
        asked.plans,
        answers=[asked.answer],
        max_new_tokens=asked.max_new_tokens,
        own=asked.own,
    )


def _groups(vlm: VLM, prompts: Sequence[Swept]) -> list[list[int]]:
    """Prompts that one batch can hold: the same positions, spans and bound, in a model that shares prefixes."""
    groups: list[list[int]] = []
    for at, asked in enumerate(prompts):
        for group in groups:
            first = prompts[group[0]]
            if can_share(vlm, asked.encoded) and _alike(first, asked):
                group.append(at)
                break
        else:
            groups.append([at])
    return groups


def _alike(first: Swept, other: Swept) -> bool:
    return (
        first.encoded.spans == other.encoded.spans
        and first.max_new_tokens == other.max_new_tokens
        and first.own.length == other.own.length
        and torch.equal(first.encoded.positions, other.encoded.positions)
    )


def _together(vlm: VLM, asked: Sequence[Swept], first: RowStart) -> list[SweepResult]:
    """Prompts of one group; positions and masks are those of the first's start."""
    for one in asked:
        assert one.own.image_key == one.encoded.image_key, "an image cache belongs to its prompt"
        check_plans(one.plans, one.encoded, "text")
    trace, shared = _joint(vlm, asked, first)
    answers = [vlm.answer_ids(one.answer) for one in asked]
    max_new_tokens = asked[0].max_new_tokens
    ahead = max([max_new_tokens, *map(len, answers)]) - 1
    following = first.answer_tokens(vlm, ahead) if ahead > 0 else None
    rows = [(at, plan) for at, one in enumerate(asked) for plan in one.plans]

    def run(part: Sequence[int]) -> list[Row]:
        owners = [rows[row][0] for row in part]
        context = Context(shared, first.context.spans, owners=torch.tensor(owners))
        lengths = sorted({len(answers[owner]) for owner in owners})
        scored = []
        for length in lengths:
            places = [place for place, owner in enumerate(owners) if len(answers[owner]) == length]
            ids = torch.tensor([answers[owners[place]] for place in places], device=vlm.device)
            scored.append((ids, places))
        plans = [rows[row][1] for row in part]
        found = run_plans(vlm, plans, trace, context, following, scored, max_new_tokens)
        of_length = [lengths.index(len(answers[owner])) for owner in owners]
        return [replace(row, logprobs=row.logprobs[at : at + 1]) for row, at in zip(found, of_length, strict=True)]

    order = sorted_plans([plan for _, plan in rows], vlm.num_layers)
    limit = vlm.row_limit or guess_row_limit(vlm, first.trace)
    done, fitting = in_parts(order, limit, run, "rows")
    if fitting < limit:
        vlm.row_limit = fitting
    by_row = dict(zip(order, done, strict=True))
    ordered = iter([by_row[row] for row in range(len(rows))])
    return [_result(vlm, one, [next(ordered) for _ in one.plans]) for one in asked]


def _joint(
    vlm: VLM, asked: Sequence[Swept], first: RowStart
) -> tuple[LayerTrace, list[tuple[torch.Tensor, torch.Tensor]]]:
    """The plain model over what follows the images, a row each prompt, and per layer the keys and values before it."""
    shared = [
        (torch.cat([one.own.keys[layer] for one in asked]), torch.cat([one.own.values[layer] for one in asked]))
        for layer in range(vlm.num_layers)
    ]
    start = first.trace.start
    ids = torch.cat([one.encoded.input_ids[:, start:] for one in asked])
    positions = torch.cat([one.encoded.positions[..., start:] for one in asked], dim=-2)
    trace = trace_after(vlm, shared, ids, positions, start)
    return replace(first.trace, hidden=trace.hidden, keys=trace.keys, values=trace.values), shared


def _result(vlm: VLM, asked: Swept, rows: Sequence[Row]) -> SweepResult:
    return SweepResult(
        logits=torch.stack([row.logits for row in rows]),
        answer_logprobs=torch.stack([row.logprobs for row in rows]),
        texts=[vlm.tokenizer.decode(row.ids, skip_special_tokens=True).strip() for row in rows],
        token_ids=[row.ids for row in rows],
        shared_prefix=True,
        names=[plan.name for plan in asked.plans],
        answers=[asked.answer],
    )
