"""The sweep: run any plans on one prompt and return logits, log-probabilities of given answers, or generated answers.

The image is prefilled once. Rows share its keys and values and everything below the layer where they first differ; only
answer positions get logits. Where a prompt can't share its prefix, the same rows run over the whole prompt instead.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from vfl.engine.branch import Branch, wide
from vfl.engine.image_cache import ImageCache
from vfl.engine.layer_trace import LayerTrace
from vfl.engine.memory import guess_row_limit, in_parts
from vfl.engine.plan import Plan
from vfl.engine.row_start import Reading, RowStart, row_start
from vfl.engine.rows import Context, Tokens, run_rows, tokens_of
from vfl.errors import InputError
from vfl.io.notebook import html_table
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SweepResult:
    """Results of R plans.

    Attributes:
        logits: (R, vocabulary) at the last prompt position, on the CPU.
        answer_logprobs: (R, A) mean log-probability per token of each given answer, in nats; NaN where a plan was not
            to be scored by an answer.
        texts: R generated answers; empty strings where none was asked for.
        token_ids: their tokens, without the end token.
        shared_prefix: False where exact full passes were run.
        names: of the R plans.
        answers: the A answers.
    """

    logits: torch.Tensor
    answer_logprobs: torch.Tensor
    texts: list[str]
    token_ids: list[list[int]]
    shared_prefix: bool
    names: list[str]
    answers: list[str]

    def __repr__(self) -> str:
        scored = len(self.answers)
        return f"SweepResult({len(self.names)} plans, {scored} answers scored, generated: {any(self.token_ids)})"

    def _repr_html_(self) -> str:
        scored = [[f"{value:.3f}" for value in row] for row in self.answer_logprobs.tolist()]
        headings = ["plan", "answer", *(f"nats per token, {answer}" for answer in self.answers)]
        rows = [[name, text, *row] for name, text, row in zip(self.names, self.texts, scored, strict=True)]
        return html_table(f"{len(self.names)} plans", headings, rows)

    def plot(self) -> "Figure":
        """A row a plan, a colour a scored answer: its mean log-probability per token.

        Raises:
            InputError: where no answers were scored.
        """
        from vfl.report.dots import Dot
        from vfl.report.picture import picture

        unit = "nats per token"
        rows = [f"{number}: {name}" if self.names.count(name) > 1 else name for number, name in enumerate(self.names)]
        dots = [
            Dot(row, unit, value, group=answer)
            for answer, values in zip(self.answers, self.answer_logprobs.T.tolist(), strict=True)
            for row, value in zip(rows, values, strict=True)
        ]
        figure = picture("Log-probability of answers by plan", dots=dots, axis=unit)
        if figure is None:
            raise InputError("No answer was scored, so there is nothing to draw: sweep with answers=['3', '4'].")
        return figure


@torch.no_grad()
def sweep(
    vlm: VLM,
    encoded: Encoded,
    plans: Sequence[Plan],
    *,
    answers: Sequence[str] = (),
    scored: Sequence[Collection[int]] | None = None,
    max_new_tokens: int = 0,
    reading: Reading = "text",
    own: ImageCache | None = None,
    start: RowStart | None = None,
) -> SweepResult:
    """Run plans on one prompt.

    Args:
        vlm: the model.
        encoded: the prompt.
        plans: what the text reads, a row each; results come in this order.
        answers: answers to score under teacher forcing.
        scored: for each plan, the numbers of the answers that it is scored by; all by all if None.
        max_new_tokens: generate greedily up to this many tokens; 0 for none.
        reading: who sees the plan. "text": every token after the image (default); "answer": the last prompt position
            and the answer; "all": the vision tokens too (leaks through the vision states, for comparison).
        own: the prompt's own image cache from `prefill`, to reuse it for several questions on one image.
        start: the prompt made ready by `row_start`, to sweep it several times; it has its own `reading`.

    Raises:
        InputError: for image caches whose vision tokens don't fit, layers the model lacks, or an unknown reading.
    """
    if start is None:
        start = row_start(vlm, encoded, reading, own)
    assert start.encoded is encoded, "a row start belongs to its prompt"
    if not plans:
        raise InputError("No plans were given. Give at least Plan.own() for the baseline.")
    check_plans(plans, encoded, start.reading)
    answer_ids = [vlm.answer_ids(answer) for answer in answers]
    order = sorted_plans(plans, vlm.num_layers)
    ahead = max([max_new_tokens, *map(len, answer_ids)]) - 1
    following = start.answer_tokens(vlm, ahead) if ahead > 0 else None

    def run(rows: Sequence[int]) -> list[Row]:
        asked = [
            (
                torch.tensor([ids], device=vlm.device),
                [place for place, row in enumerate(rows) if scored is None or number in scored[row]],
            )
            for number, ids in enumerate(answer_ids)
        ]
        part = [plans[row] for row in rows]
        return run_plans(vlm, part, start.trace, start.context, following, asked, max_new_tokens)

    limit = vlm.row_limit or guess_row_limit(vlm, start.trace)
    done, fitting = in_parts(order, limit, run, "rows")
    if fitting < limit:
        vlm.row_limit = fitting
    by_plan = dict(zip(order, done, strict=True))
    rows = [by_plan[row] for row in range(len(plans))]
    return SweepResult(
        logits=torch.stack([row.logits for row in rows]),
        answer_logprobs=torch.stack([row.logprobs for row in rows]),
        texts=[vlm.tokenizer.decode(row.ids, skip_special_tokens=True).strip() for row in rows],
        token_ids=[row.ids for row in rows],
        shared_prefix=start.shared_prefix,
        names=[plan.name for plan in plans],
        answers=list(answers),
    )


def check_plans(plans: Sequence[Plan], encoded: Encoded, reading: Reading) -> None:
    """Raise InputError for plans that can't be run on a prompt."""
    images: dict[int, ImageCache] = {}  # each is looked at once: on a GPU that waits for what runs
    for plan in plans:
        images |= {id(image_cache): image_cache for image_cache in plan.reads.values() if image_cache is not None}
        if reading == "all" and None in plan.reads.values():
            raise InputError(f"Plan {plan.name!r} hides the image, which reading='all' does not define.")
    for image_cache in images.values():
        image_cache.check_swappable(encoded)


def sorted_plans(plans: Sequence[Plan], num_layers: int) -> list[int]:
    """Rows by the layer where they join, then by image, so that neighbours read the same keys as often as can be."""
    images: dict[int, int] = {}

    def place(row: int) -> tuple[int, int, int]:
        reads = plans[row].reads
        first = plans[row].first_layer(num_layers)
        image = images.setdefault(id(reads[first]), len(images)) if reads else -1
        return first, image, -max(reads, default=0)

    return sorted(range(len(plans)), key=place)


@dataclass(frozen=True)
class Row:
    """One plan's result, on the CPU: (vocabulary,) logits, (A,) scores of answers, and the generated answer."""

    logits: torch.Tensor
    logprobs: torch.Tensor
    ids: list[int]


def run_plans(
    vlm: VLM,
    plans: list[Plan],
    trace: LayerTrace,
    context: Context,
    following: Tokens | None,
    asked: list[tuple[torch.Tensor, list[int]]],
    max_new_tokens: int,
) -> list[Row]:
    """Run plans, in the order of `sorted_plans`, from their trace on.

    An answer that is scored is a draft, too: a row that says it up to its last token generates what comes after.

    Args:
        vlm: the model.
        plans: R plans.
        trace: the plain model over the tokens that rows run.
        context: what comes before them.
        following: tokens after the prompt.
        asked: A answers, each as tokens, the same for all rows (1, n) or a row each, and the rows that it scores.
        max_new_tokens: of generated answers.
    """
    output, prompt = run_rows(vlm, plans, tokens_of(trace), context, trace=trace)
    logits = wide(vlm.logits(output[:, -1]))
    branch = Branch(vlm, plans, replace(context, readers=None), prompt, following)
    scored = [branch.score_rows(rows, ids, logits) for ids, rows in asked]
    logprobs = torch.stack([scores for scores, _ in scored], dim=1) if scored else logits.new_zeros(len(plans), 0)
    begun = [start for _, start in scored if start is not None]
    generated = branch.generate_all(logits, begun, max_new_tokens) if max_new_tokens else [[] for _ in plans]
    logits, logprobs = logits.cpu(), logprobs.cpu()
    return [Row(logits[row], logprobs[row], generated[row]) for row in range(len(plans))]
