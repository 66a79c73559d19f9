"""Sweeps of several prompts at once: rows of prompts of one shape are one batch, each with its own image before it.

A small model, or a GPU with a short question, spends its time on starting kernels: they are started once for all.
Results are those of `sweep` on each prompt.
"""

from collections.abc import Collection, Sequence
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
        answers: scored under teacher forcing.
        max_new_tokens: of the generated answers; 0 for none.
        own: the prompt's own image cache.
        scored: for each plan, the numbers of the answers that it is scored by; all by all if None.
    """

    encoded: Encoded
    plans: Sequence[Plan]
    answers: Sequence[str]
    max_new_tokens: int
    own: ImageCache
    scored: Sequence[Collection[int]] | None = None

    def scores(self, plan: int, answer: int) -> bool:
        """Whether a plan is scored by an answer, both by number."""
        return self.scored is None or answer in self.scored[plan]


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
        answers=asked.answers,
        scored=asked.scored,
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
    answers = [[vlm.answer_ids(answer) for answer in one.answers] for one in asked]
    max_new_tokens = asked[0].max_new_tokens
    ahead = max([max_new_tokens, *(len(ids) for of_prompt in answers for ids in of_prompt)]) - 1
    following = first.answer_tokens(vlm, ahead) if ahead > 0 else None
    rows = [(at, number) for at, one in enumerate(asked) for number in range(len(one.plans))]

    def run(part: Sequence[int]) -> list[Row]:
        owners = [rows[at][0] for at in part]
        context = Context(shared, first.context.spans, owners=torch.tensor(owners))
        # Rows are scored together by their prompts' n-th answers of one length.
        places: dict[tuple[int, int], list[int]] = {}
        for place, (at, plan) in enumerate(rows[at] for at in part):
            for number, ids in enumerate(answers[at]):
                if asked[at].scores(plan, number):
                    places.setdefault((number, len(ids)), []).append(place)
        scored = [
            (torch.tensor([answers[owners[place]][number] for place in of_length], device=vlm.device), of_length)
            for (number, _), of_length in places.items()
        ]
        plans = [asked[at].plans[number] for at, number in (rows[at] for at in part)]
        found = run_plans(vlm, plans, trace, context, following, scored, max_new_tokens)
        columns = {key: column for column, key in enumerate(places)}
        ordered = []
        for owner, row in zip(owners, found, strict=True):
            scores = row.logprobs.new_full((len(answers[owner]),), torch.nan)
            for number, ids in enumerate(answers[owner]):
                if (column := columns.get((number, len(ids)))) is not None:
                    scores[number] = row.logprobs[column]
            ordered.append(replace(row, logprobs=scores))
        return ordered

    order = sorted_plans([asked[at].plans[number] for at, number in rows], vlm.num_layers)
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
        answers=list(asked.answers),
    )
