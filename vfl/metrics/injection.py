"""Causal injection: an unrelated image below layer n, the clean image's vision states from layer n on.

Accuracy against n tells from which layer on the text reads the image: it stays high while nothing below n was needed.
Vision states do not depend on the text that follows, so this is a swap of all layers from n on. Source: "Unmasking the
functionality of early layers in VLMs" (Hartman et al.).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vfl.engine.joint_prefill import prefill_all
from vfl.engine.plan import Plan
from vfl.errors import InputError
from vfl.metrics.accuracy import TOLERANCE, accuracy_along, asked_images, points
from vfl.metrics.result import Result
from vfl.metrics.spec import EARLY, Metric
from vfl.models.vlm import VLM
from vfl.probes.asking import Asked, question_of
from vfl.probes.pair import Pair, Which

UNRELATED = ("other", "noise")
NOISE_SEED = 0


def injection(
    vlm: VLM,
    pairs: Sequence[Pair],
    *,
    ns: Sequence[int] | None = None,
    unrelated: str = "other",
    tolerance: float = TOLERANCE,
) -> Result:
    """Accuracy, against the clean image's answer, with an unrelated image read below layer n, for each function.

    Args:
        vlm: the model.
        pairs: probe pairs of any functions; each is asked on both its images.
        ns: first layers of the clean image, 0 (always added: the plain model) to L (only the unrelated image); all of
            them by default.
        unrelated: "other": the image of another pair of equal size, of another function where there is one, else with
            another answer; "noise": uniform noise.
        tolerance: how much accuracy may fall to count as tolerated.

    Returns:
        See `accuracy_along`; the curves' axis is n.

    Raises:
        InputError: without pairs, for an n outside of 0 .. L, or where a pair has no other image of its size.
    """
    firsts = check(vlm, ns=ns, unrelated=unrelated)

    def plans_of(images: Sequence[tuple[Pair, Which]], asked: Sequence[Asked]) -> list[tuple[Asked, list[Plan]]]:
        shown = []
        for pair, which in images:
            image: Any = _noise(pair) if unrelated == "noise" else unrelated_pair(pair, which, pairs).path("image")
            shown.append(vlm.ask(question_of(vlm, pair), image))
        return [
            (Asked(prompt, image_cache), [Plan.suffix(n, clean.image_cache) for n in firsts])
            for prompt, image_cache, clean in zip(shown, prefill_all(vlm, shown), asked, strict=True)
        ]

    options: dict[str, Any] = {"unrelated": unrelated}
    if unrelated == "noise":
        options["noise_seed"] = NOISE_SEED
    return accuracy_along(vlm, pairs, firsts, plans_of, axis="n", tolerance=tolerance, options=options)


def unrelated_pair(pair: Pair, which: Which, pairs: Sequence[Pair]) -> Pair:
    """The next pair after this one, in a circle, whose target image has its size and is unrelated to its answer.

    Raises:
        InputError: when there is none.
    """
    answer = pair.source_answer if which == "source_image" else pair.answer
    at = next(row for row, other in enumerate(pairs) if other is pair)
    mine = {pair.path(image) for image in pair.images}
    following = (*pairs[at + 1 :], *pairs[:at])
    others = [other for other in following if other.size == pair.size and other.path("image") not in mine]
    elsewhere = [other for other in others if other.function != pair.function]
    different = [other for other in others if other.function == pair.function and other.answer != answer]
    if not elsewhere + different:
        width, height = pair.size
        raise InputError(
            f"Pair {pair.id!r} ({width}x{height}) has no unrelated image of its size among {len(pairs)} pairs. Give "
            "more pairs, or unrelated='noise'."
        )
    return (elsewhere + different)[0]


def _noise(pair: Pair) -> Image.Image:
    width, height = pair.size
    pixels = np.random.default_rng(NOISE_SEED).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _without_another(pairs: Sequence[Pair], options: Mapping[str, Any]) -> str | None:
    """Why some pair has no unrelated image, where one is needed."""
    if options.get("unrelated") == "noise":
        return None
    try:
        for pair in pairs:
            for which in asked_images(pair):
                unrelated_pair(pair, which, pairs)
    except InputError as error:
        return f"it needs an unrelated image for each: {error}"
    return None


def check(vlm: VLM, *, ns: Sequence[int] | None = None, unrelated: str = "other") -> list[int]:
    """First layers of the clean image; InputError for one outside of 0 .. L, or an unknown kind of other image."""
    if unrelated not in UNRELATED:
        raise InputError(f"unrelated={unrelated!r} is unknown; expected one of {', '.join(UNRELATED)}.")
    return points(ns, range(vlm.num_layers + 1), vlm, "ns")


SPEC = Metric(
    function=injection,
    check=check,
    needs="pairs",
    title="Causal injection",
    read="Below layer n the text reads an unrelated image, from n on the right one. Accuracy stays while nothing below "
    "n was needed; where it falls, the text has begun to take from the image. At n = L only the unrelated image is "
    "left.",
    use="Leave out of any skipping the layers from where accuracy begins to fall; they are where to look with swap "
    "and vfl locate.",
    unfit=_without_another,
    source=EARLY,
    equation="accuracy(n) with an unrelated image’s states in layers 0 … n−1, the image’s own from n on",
)
