"""The pairs of one function as a model answers them: what every method starts from."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vfl.engine.image_cache import ImageCache
from vfl.engine.plan import Plan
from vfl.engine.row_start import RowStart, row_start
from vfl.engine.sweep import sweep
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM
from vfl.probes.asking import Asker, expected_text, read_answer, token_limit
from vfl.probes.make import make
from vfl.probes.pair import Pair
from vfl.probes.style import MICRO_STYLE


@dataclass(frozen=True, eq=False)
class Kept:
    """A pair that the model answers rightly on both images, its image caches ready.

    Attributes:
        pair: the pair.
        target: the prompt that is asked.
        own: its image cache.
        other: the source image's.
        source: the source image's prompt.
        answers: the target's right answer and the source's, as the model writes them.
        start: the target's prompt made ready for sweeps.
        limit: most tokens of an answer.
        text: the unswapped answer.
        differing: (V,) bool, vision tokens whose pixels differ between the two images.
    """

    pair: Pair
    target: Encoded
    own: ImageCache
    other: ImageCache
    source: Encoded
    answers: tuple[str, str]
    start: RowStart
    limit: int
    text: str
    differing: np.ndarray

    def texts(self, vlm: VLM, plans: Sequence[Plan]) -> list[str]:
        """The answers under plans, as the pair's reader has them."""
        swept = sweep(vlm, self.target, plans, max_new_tokens=self.limit, start=self.start)
        return [read_answer(vlm, self.pair, text, self.target) for text in swept.texts]

    def changed(self, vlm: VLM, plans: Sequence[Plan]) -> list[bool]:
        """Which plans change the answer."""
        return [self.pair.changed(text, self.text) for text in self.texts(vlm, plans)]


def asked(vlm: VLM, functions: Sequence[str], pairs: int, seed: int) -> dict[str, list[Kept]]:
    """The kept ones of `pairs` generated pairs of each function."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = make(Path(folder) / "suite", tuple(functions), pairs=pairs, seed=seed, style=MICRO_STYLE)
        asker = Asker(vlm)
        found = [(pair, _kept(asker, pair)) for pair in drawn]
    return {name: [kept for pair, kept in found if kept and pair.function == name] for name in functions}


def _kept(asker: Asker, pair: Pair) -> Kept | None:
    vlm = asker.vlm
    target, source = asker.ask_all(pair, ["image", "source_image"])
    limit = token_limit(vlm, pair)
    start = row_start(vlm, target.encoded, "text", target.image_cache)
    plans = [Plan.own(), Plan.swap(range(vlm.num_layers), source.image_cache)]
    texts = sweep(vlm, target.encoded, plans, max_new_tokens=limit, start=start).texts
    text, source_text = (read_answer(vlm, pair, text, target.encoded) for text in texts)
    if not (pair.correct(text) and pair.correct(source_text, "source_image")):
        return None
    answers = tuple(expected_text(vlm, pair, answer, target.encoded) for answer in (pair.answer, pair.source_answer))
    return Kept(
        pair=pair,
        target=target.encoded,
        own=target.image_cache,
        other=source.image_cache,
        source=source.encoded,
        answers=(answers[0], answers[1]),
        start=start,
        limit=limit,
        text=text,
        differing=_differing(pair, len(target.image_cache.slots())),
    )


def _differing(pair: Pair, tokens: int) -> np.ndarray:
    """(V,) which cells of the square grid of vision tokens hold other pixels."""
    first, second = (np.array(Image.open(pair.path(which)).convert("RGB")) for which in ("image", "source_image"))
    grid = round(tokens**0.5)
    cell = first.shape[0] // grid
    other = (first != second).any(-1)[: grid * cell, : grid * cell]
    return other.reshape(grid, cell, grid, cell).any(axis=(1, 3)).ravel()
