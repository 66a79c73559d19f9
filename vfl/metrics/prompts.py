"""Probe pairs as prompts, one at a time or some together."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from vfl.models.encode import Encoded
from vfl.models.vlm import VLM
from vfl.probes.asking import question_of
from vfl.probes.pair import Pair, Which

LOT = 32  # images whose prompts are held at a time

T = TypeVar("T")


def noted(prompts: Iterable[Encoded], images: list[Hashable]) -> Iterator[Encoded]:
    """The prompts one by one, each one's image added to `images`: the clusters of what is measured on them."""
    for encoded in prompts:
        images.append(encoded.image_key)
        yield encoded


def prompts_of(vlm: VLM, pairs: Iterable[Pair], which: Sequence[Which] = ("image",)) -> Iterator[Encoded]:
    """Each pair's question on those of the images that it has, encoded one at a time: no suite is held in memory."""
    for pair in pairs:
        for image in which:
            if image not in pair.images:
                continue
            yield vlm.ask(question_of(vlm, pair), pair.path(image))


def in_lots(samples: Iterable[T], size: int = LOT) -> Iterator[list[T]]:
    """Samples a lot at a time: enough of them to be asked together, and no suite is held in memory."""
    coming = iter(samples)
    while lot := list(islice(coming, size)):
        yield lot
