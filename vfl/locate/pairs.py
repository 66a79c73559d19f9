"""Probe pairs through the sweep: rows of the records table.

Pairs that ask the same target are swept in one visit: its prompt is run once, and the rows of all sources, and those of
the control that they share, are one batch.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from vfl.engine.image_cache import can_share
from vfl.engine.joint_sweep import Swept, sweep_all
from vfl.engine.plan import Plan
from vfl.engine.row_start import Reading, RowStart, row_start
from vfl.engine.sweep import SweepResult, sweep
from vfl.errors import InputError
from vfl.locate.curves import LayerSpan
from vfl.models.vlm import VLM
from vfl.probes.asking import Asked, Asker, expected_text, read_answer, token_limit
from vfl.probes.pair import Pair, Which

Record = dict[str, Any]
Answers = dict[tuple[str, Path, int], str]
"""Unswapped answers of a group, by question, image and the tokens they may have."""
Visit = Generator[list[Swept], list[SweepResult], list[Record]]
"""A visit of pairs that ask the same target: it asks for sweeps, goes on with what they give, and ends with records."""


def groups(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """Pairs of a group together, in order of appearance; others alone."""
    together: dict[str, list[Pair]] = {}
    for pair in pairs:
        # Ids are unique, so a name of its own can't be that of a group.
        together.setdefault(f"pair {pair.id}" if pair.group is None else f"group {pair.group}", []).append(pair)
    return list(together.values())


def sweep_group(asker: Asker, pairs: Sequence[Pair], blocks: Sequence[LayerSpan], **options: Any) -> list[Record]:
    """As `sweep_pair` for the pairs of one group: those that ask the same target are one visit.

    What it gives depends on these pairs alone, so that a group that was interrupted and is swept again gives the same.
    """
    answers: Answers = {}
    return [
        record for visit in visits(pairs) for record in sweep_visit(asker, visit, blocks, answers=answers, **options)
    ]


def visits(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """The pairs of one group by what they ask of which target."""
    return [list(visit) for _, visit in groupby(sorted(pairs, key=_target), key=_target)]


def _target(pair: Pair) -> tuple[str, ...]:
    return pair.image, pair.control_image or "", pair.question, pair.answer, pair.match, pair.label or ""


def sweep_pair(
    asker: Asker,
    pair: Pair,
    blocks: Sequence[LayerSpan],
    *,
    reading: Reading = "text",
    max_new_tokens: int | None = None,
    unfiltered: bool = False,
) -> list[Record]:
    """Ask a pair unswapped and with each block of layers swapped for the source's and the control's.

    A pair that isn't answered correctly on both images gets its unswapped row alone, unless `unfiltered`. The control's
    rows are left out when its own answer is wrong: what a misread image changes says nothing.

    Raises:
        InputError: names the pair, when its images don't give the same vision tokens.
    """
    return sweep_visit(asker, [pair], blocks, reading=reading, max_new_tokens=max_new_tokens, unfiltered=unfiltered)


def sweep_visit(
    asker: Asker, pairs: Sequence[Pair], blocks: Sequence[LayerSpan], *, reading: Reading = "text", **options: Any
) -> list[Record]:
    """As `sweep_pair` for pairs that ask the same target, with the options of `visit`."""
    vlm = asker.vlm
    kept: list[RowStart] = []  # the target's, which is asked first and swept last

    def alone(asked: Swept) -> SweepResult:
        start = kept[0] if kept and kept[0].encoded is asked.encoded else None
        if start is None:
            start = row_start(vlm, asked.encoded, reading, asked.own)
            kept[:] = kept or [start]
        limit, scored = asked.max_new_tokens, asked.scored
        return sweep(
            vlm, asked.encoded, asked.plans, answers=asked.answers, scored=scored, max_new_tokens=limit, start=start
        )

    return _finished([visit(asker, pairs, blocks, reading=reading, **options)], lambda asked: [*map(alone, asked)])[0]


def sweep_visits(asker: Asker, several: Sequence[Sequence[Pair]], blocks: Sequence[LayerSpan]) -> list[list[Record]]:
    """As `sweep_visit` for each visit, read as text: prompts of one shape are swept together."""
    return _finished([visit(asker, pairs, blocks) for pairs in several], lambda asked: sweep_all(asker.vlm, asked))


def _finished(under_way: Sequence[Visit], run: Callable[[list[Swept]], Sequence[SweepResult]]) -> list[list[Record]]:
    """The records of visits that go on side by side, whatever they ask for being run together."""
    records: dict[int, list[Record]] = {}
    given: dict[int, list[SweepResult] | None] = dict.fromkeys(range(len(under_way)))
    while given:
        asked: dict[int, list[Swept]] = {}
        for number, results in given.items():
            try:
                asked[number] = under_way[number].send(results)  # type: ignore[arg-type]  # None starts it
            except StopIteration as end:
                records[number] = end.value
        swept = iter(run([one for wanted in asked.values() for one in wanted]) if asked else ())
        given = {number: [next(swept) for _ in wanted] for number, wanted in asked.items()}
    return [records[number] for number in range(len(under_way))]


def visit(
    asker: Asker,
    pairs: Sequence[Pair],
    blocks: Sequence[LayerSpan],
    *,
    reading: Reading = "text",
    max_new_tokens: int | None = None,
    unfiltered: bool = False,
    untrained: bool = False,
    answers: Answers | None = None,
) -> Visit:
    """The sweeps of pairs that ask the same target, one after the other; known `answers` aren't asked again.

    Args:
        untrained: the model answers nothing rightly. All pairs are kept and have control rows, and an answer has
            changed when its text has, since what can't be read is changed by definition.
    """
    vlm, first = asker.vlm, pairs[0]
    images: list[tuple[Pair, Which]] = [(first, "image"), *((pair, "source_image") for pair in pairs)]
    if first.control_image is not None and blocks:
        images.append((first, "control_image"))
    asked = asker.ask_images(images)
    target, sources, control = asked[0], asked[1 : 1 + len(pairs)], asked[1 + len(pairs) :]
    for (pair, _), other in zip(images[1:], asked[1:], strict=True):
        try:
            other.image_cache.check_swappable(target.encoded)
        except InputError as error:
            raise InputError(f"Pair {pair.id!r}: {error}") from error
    limit = max(token_limit(vlm, pair.limited(max_new_tokens)) for pair in pairs)
    answers = {} if answers is None else answers
    keys = [(pair.question, pair.path(which), limit) for pair, which in images]
    new = [n for n, key in enumerate(keys) if key not in answers]
    unswapped = yield _own_answers(asker.vlm, target, [asked[n] for n in new], reading, limit)
    answers |= zip([keys[n] for n in new], [text for one in unswapped for text in one.texts], strict=True)
    own = [
        read_answer(vlm, pair, answers[key], image.encoded)
        for (pair, _), image, key in zip(images, asked, keys, strict=True)
    ]
    source_correct = [pair.correct(text, "source_image") for pair, text in zip(pairs, own[1:], strict=False)]
    # By each pair's own answers, since a text is read by which of these it holds.
    right = [pair.correct(own[0]) and correct for pair, correct in zip(pairs, source_correct, strict=True)]
    swept = [n for n in range(len(pairs)) if blocks and (untrained or unfiltered or right[n])]

    # Answer 0 is the target's, answer 1 + n that of the source of pair n.
    expected = [expected_text(vlm, first, first.answer, target.encoded)]
    expected += [expected_text(vlm, pair, pair.source_answer, target.encoded) for pair in pairs]
    layers = [range(block[0], block[1] + 1) for block in blocks]
    plans, scored = [Plan.own()], [tuple(range(len(expected)))]
    place: dict[tuple[str, int], int] = {}  # where the rows of a swap begin
    for n in swept:
        place["source", n] = len(plans)
        plans += [Plan.swap(block, sources[n].image_cache) for block in layers]
        scored += [(0, 1 + n)] * len(layers)
    controlled = [n for n in swept if control and (untrained or pairs[n].correct(own[-1], "control_image"))]
    if controlled:
        place |= {("control", n): len(plans) for n in controlled}
        plans += [Plan.swap(block, control[0].image_cache) for block in layers]
        scored += [(0, *(1 + n for n in controlled))] * len(layers)
    (result,) = yield [Swept(target.encoded, plans, expected, limit if swept else 0, target.image_cache, scored)]
    # The unswapped answer is that of the same batch, so that rounding can't tell it from the swapped ones.
    texts = [read_answer(vlm, first, text, target.encoded) for text in result.texts] if swept else [own[0]]
    scores = result.answer_logprobs.tolist()
    records = []
    for n, (pair, source_text) in enumerate(zip(pairs, own[1:], strict=False)):
        target_correct = pair.correct(texts[0])
        rows: list[tuple[str, LayerSpan, int]] = [("none", (-1, -1), 0)]
        for swap in ("source", "control"):
            if (swap, n) in place:
                rows += [(swap, block, place[swap, n] + number) for number, block in enumerate(blocks)]
        records += [
            {
                "function": pair.function,
                "pair_id": pair.id,
                "group": pair.group,
                "kept": untrained or (target_correct and source_correct[n]),
                "target_correct": target_correct,
                "source_correct": source_correct[n],
                "swap": swap,
                "first": block[0],
                "last": block[1],
                "answer": texts[row],
                "changed": swap != "none"
                and (texts[row] != texts[0] if untrained else pair.changed(texts[row], texts[0])),
                "followed_source": swap != "none"
                and (texts[row] == source_text if untrained else pair.followed_source(texts[row], source_text)),
                "logprob_answer": scores[row][0],
                "logprob_source_answer": scores[row][1 + n],
                "baseline_answer": texts[0],
                "source_baseline": source_text,
            }
            for swap, block, row in rows
        ]
    return records


def _own_answers(vlm: VLM, target: Asked, asked: Sequence[Asked], reading: Reading, limit: int) -> list[Swept]:
    """The sweeps that give the model's unswapped answer to each image.

    With every layer swapped for another image a row of the target is that image's own prompt, so all are rows of one
    sweep. Where what comes before the text may differ (full passes, another reading, other tokens), each has its own.
    """
    alike = all(torch.equal(image.encoded.input_ids, target.encoded.input_ids) for image in asked)
    if asked and can_share(vlm, target.encoded) and reading == "text" and alike:
        every = range(vlm.num_layers)
        plans = [Plan.own() if i.encoded is target.encoded else Plan.swap(every, i.image_cache) for i in asked]
        return [Swept(target.encoded, plans, (), limit, target.image_cache)]
    return [Swept(image.encoded, [Plan.own()], (), limit, image.image_cache) for image in asked]
