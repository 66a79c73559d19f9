"""One probe pair through the sweep: rows of the records table."""

from collections.abc import Sequence
from typing import Any

from vfl.engine.image_cache import ImageCache
from vfl.engine.plan import Plan
from vfl.engine.sweep import Reading, sweep
from vfl.errors import InputError
from vfl.locate.curves import LayerSpan
from vfl.probes.asking import Asked, Asker, expected_text, read_answer, token_limit
from vfl.probes.pair import Pair


def sweep_pair(
    asker: Asker,
    pair: Pair,
    blocks: Sequence[LayerSpan],
    *,
    reading: Reading = "text",
    max_new_tokens: int | None = None,
) -> list[dict[str, Any]]:
    """Ask a pair unswapped and with each block of layers swapped for the source's and the control's.

    The control's rows are left out when its own answer is wrong: what a misread image changes says nothing.

    Raises:
        InputError: names the pair, when its images don't give the same vision tokens.
    """
    vlm = asker.vlm

    def answers_of(
        asked: Asked, plans: list[Plan], limit: int, score: Sequence[str] = ()
    ) -> tuple[list[str], list[list[float]]]:
        result = sweep(
            vlm, asked.encoded, plans, answers=score, max_new_tokens=limit, reading=reading, own=asked.image_cache
        )
        return [read_answer(vlm, pair, text, asked.encoded) for text in result.texts], result.answer_logprobs.tolist()

    def swaps(image_cache: ImageCache) -> list[Plan]:
        return [Plan.swap(range(first, last + 1), image_cache) for first, last in blocks]

    try:
        target, source = asker.ask(pair, "image"), asker.ask(pair, "source_image")
        expected = [expected_text(vlm, pair, answer, target.encoded) for answer in (pair.answer, pair.source_answer)]
        limit = token_limit(vlm, pair.limited(max_new_tokens))
        (source_text,), _ = answers_of(source, [Plan.own()], limit)
        labels: list[tuple[str, int, int]] = [("none", -1, -1), *(("source", *block) for block in blocks)]
        plans = [Plan.own(), *swaps(source.image_cache)]
        if pair.control_image is not None and blocks:
            control = asker.ask(pair, "control_image")
            (control_text,), _ = answers_of(control, [Plan.own()], limit)
            if pair.correct(control_text, "control_image"):
                labels += [("control", *block) for block in blocks]
                plans += swaps(control.image_cache)
        texts, logprobs = answers_of(target, plans, limit, expected)
    except InputError as error:
        raise InputError(f"Pair {pair.id!r}: {error}") from error
    target_correct, source_correct = pair.correct(texts[0]), pair.correct(source_text, "source_image")
    return [
        {
            "function": pair.function,
            "pair_id": pair.id,
            "kept": target_correct and source_correct,
            "target_correct": target_correct,
            "source_correct": source_correct,
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
        for (swap, first, last), text, scores in zip(labels, texts, logprobs, strict=True)
    ]
