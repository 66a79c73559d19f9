"""Groups: all ordered pairs of a few images that show one scene with different answers.

Of n images each is asked about and lends its states to the n - 1 others, so that n(n - 1) pairs take n images and as
many controls instead of three images each. Pairs of a group are not independent: they carry its name, and intervals and
tests take a group as one sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from PIL import Image

from vfl.errors import InputError
from vfl.probes.match import Box, MatchKind
from vfl.probes.pair import DrawnPair, Which


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One image of a scene.

    Attributes:
        answer: to the scene's question.
        image: what is seen.
        boxes: where that is, if anywhere, in pixels.
        control_image: the same answer with another look; an image without one only lends its states.
        control_boxes: as `boxes`.
        label: as of `Pair`, where the images differ in it.
    """

    answer: str
    image: Image.Image
    boxes: Sequence[Box] = ()
    control_image: Image.Image | None = None
    control_boxes: Sequence[Box] = ()
    label: str | None = None


def ordered_pairs(
    shown: Sequence[Shown],
    *,
    function: str,
    question: str,
    match: MatchKind,
    label: str | None = None,
    choices: tuple[str, ...] = (),
) -> list[DrawnPair]:
    """The pairs of images with different answers, those of one target together; targets are those with a control."""
    pairs = []
    for target, source in permutations(shown, 2):
        if target.control_image is None or target.answer == source.answer:
            continue
        boxes: dict[Which, Sequence[Box]] = {
            "image": target.boxes,
            "source_image": source.boxes,
            "control_image": target.control_boxes,
        }
        pairs.append(
            DrawnPair(
                function=function,
                question=question,
                answer=target.answer,
                source_answer=source.answer,
                match=match,
                image=target.image,
                source_image=source.image,
                control_image=target.control_image,
                boxes={which: list(places) for which, places in boxes.items() if places},
                label=target.label or label,
                choices=choices,
            )
        )
    return pairs


def check_size(function: str, size: int, most: int, of: str) -> None:
    """Refuse a group of fewer images than two, or of more than there are different answers.

    Raises:
        InputError: says the function, and what the answers are.
    """
    if not 2 <= size <= most:
        raise InputError(f"{function} draws groups of 2 to {most} images ({of}), got {size}")
