"""One probe pair through the sweep: rows of the records table."""

from collections.abc import Sequence
from typing import Any

import torch

from vfl.engine.plan import Plan
from vfl.engine.row_start import Reading, RowStart, row_start
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.locate.curves import LayerSpan
from vfl.probes.asking import Asked, Asker, expected_text, read_answer, token_limit
from vfl.probes.pair import Pair, Which


def sweep_pair(
    asker: Asker,
    pair: Pair,
    blocks: Sequence[LayerSpan],
    *,
    reading: Reading = "text",
    max_new_tokens: int | None = None,
    unfiltered: bool = False,
) -> list[dict[str, Any]]:
    """Ask a pair unswapped and with each block of layers swapped for the source's and the control's.

    A pair that isn't answered correctly on both images gets its unswapped row alone, unless `unfiltered`. The control's
    rows are left out when its own answer is wrong: what a misread image changes says nothing.

    Raises:
        InputError: names the pair, when its images don't give the same vision tokens.
    """
    try:
        return _records(asker, pair, blocks, reading, max_new_tokens, unfiltered)
    except InputError as error:
        raise InputError(f"Pair {pair.id!r}: {error}") from error


def _records(
    asker: Asker, pair: Pair, blocks: Sequence[LayerSpan], reading: Reading, limit: int | None, unfiltered: bool
) -> list[dict[str, Any]]:
    vlm = asker.vlm
    which: list[Which] = ["image", "source_image"]
    if pair.control_image is not None and blocks:
        which.append("control_image")
    asked = asker.ask_all(pair, which)
    target = asked[0]
    for other in asked[1:]:
        other.image_cache.check_swappable(target.encoded)
    expected = [expected_text(vlm, pair, answer, target.encoded) for answer in (pair.answer, pair.source_answer)]
    limit = token_limit(vlm, pair.limited(limit))
    start = row_start(vlm, target.encoded, reading, target.image_cache)
    own = dict(zip(which, _own_answers(asker, pair, asked, start, limit), strict=True))
    correct = {image: pair.correct(text, image) for image, text in own.items()}

    labels: list[tuple[str, int, int]] = [("none", -1, -1)]
    plans = [Plan.own()]
    if unfiltered or (correct["image"] and correct["source_image"]):
        for swap, image, other in zip(("source", "control"), which[1:], asked[1:], strict=False):
            if swap == "source" or correct[image]:
                labels += [(swap, *block) for block in blocks]
                plans += [Plan.swap(range(first, last + 1), other.image_cache) for first, last in blocks]
    swept = len(plans) > 1
    result = sweep(vlm, target.encoded, plans, answers=expected, max_new_tokens=limit if swept else 0, start=start)
    # The unswapped answer is that of the same batch, so that rounding can't tell it from the swapped ones.
    texts = [read_answer(vlm, pair, text, target.encoded) for text in result.texts] if swept else [own["image"]]
    source_text = own["source_image"]
    target_correct = pair.correct(texts[0])
    return [
        {
            "function": pair.function,
            "pair_id": pair.id,
            "kept": target_correct and correct["source_image"],
            "target_correct": target_correct,
            "source_correct": correct["source_image"],
            "swap": swap,
            "first": first,
            "last": last,
            "answer": text,
            "changed": swap != "none" and pair.changed(text, texts[0]),
            "followed_source": swap != "none" and pair.followed_source(text, source_text),
            "logprob_answer": scores[0],
            "logprob_source_answer": scores[1],
            "baseline_answer": texts[0],
            "source_baseline": source_text,
        }
        for (swap, first, last), text, scores in zip(labels, texts, result.answer_logprobs.tolist(), strict=True)
    ]


def _own_answers(asker: Asker, pair: Pair, asked: Sequence[Asked], start: RowStart, limit: int) -> list[str]:
    """The model's unswapped answer to each image.

    With every layer swapped for another image a row of the target is that image's own prompt, so all are rows of one
    sweep. Where what comes before the text may differ (full passes, another reading, other tokens), each has its own.
    """
    vlm, target = asker.vlm, asked[0].encoded
    if (
        start.shared_prefix
        and start.reading == "text"
        and all(torch.equal(other.encoded.input_ids, target.input_ids) for other in asked[1:])
    ):
        plans = [Plan.own(), *(Plan.swap(range(vlm.num_layers), other.image_cache) for other in asked[1:])]
        texts = sweep(vlm, target, plans, max_new_tokens=limit, start=start).texts
    else:
        texts = sweep(vlm, target, [Plan.own()], max_new_tokens=limit, start=start).texts
        for other in asked[1:]:
            texts += sweep(
                vlm,
                other.encoded,
                [Plan.own()],
                max_new_tokens=limit,
                reading=start.reading,
                own=other.image_cache,
            ).texts
    return [read_answer(vlm, pair, text, image.encoded) for text, image in zip(texts, asked, strict=True)]
