"""Data of the interactive lens: what every vision token of a few pictures spells, state by state, and where it lies."""

from collections.abc import Sequence
from typing import Any

import torch

from vfl.errors import InputError
from vfl.metrics.logit_lens import lens_of
from vfl.metrics.regions import token_regions
from vfl.metrics.result import by_function
from vfl.models.vlm import VLM
from vfl.probes.asking import question_of
from vfl.probes.pair import Pair
from vfl.report.thumbnail import data_uri, shrunk

TOP = 5
LARGEST = 560  # pixels of the longer side on the page
SHOWN = {" ": "␣", "\n": "⏎", "\t": "⇥"}


def lens_view(vlm: VLM, pairs: Sequence[Pair], most: int) -> list[dict[str, Any]]:
    """Plain data for the page, one entry a picture; pictures are spread over the pairs' functions.

    Returns:
        For each picture `question`, `answer`, `image` (a data URI), `size` (width, height in pixels of the file),
        `boxes` (of the object, in pixels), `regions` (V boxes in pixels, null for tokens without a place), `states`
        (L+1), `tokens` (texts), `top` (flat, (L+1) x V x 5 places in `tokens`, likeliest first) and `share` (flat
        likewise: their probability in thousandths).

    Raises:
        InputError: where the model's image tokens can't be placed in the picture.
    """
    return [_picture(vlm, pair) for pair in spread(pairs, most)]


def spread(pairs: Sequence[Pair], most: int) -> list[Pair]:
    """The first pairs of each function in turn."""
    queues = list(by_function([pair.function for pair in pairs]).values())
    order = [queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue)]
    return [pairs[row] for row in order[:most]]


def _picture(vlm: VLM, pair: Pair) -> dict[str, Any]:
    image = pair.open("image")
    encoded = vlm.ask(question_of(vlm, pair), image)
    regions = token_regions(vlm, encoded)
    if bool(torch.isnan(regions).all()):
        raise InputError(f"None of the image tokens of {pair.id!r} has a place in its picture.")
    probabilities, ids = lens_of(vlm, encoded, k=TOP)  # (L+1, V, 5)
    used, places = ids.unique(return_inverse=True)
    return {
        "question": pair.question,
        "answer": pair.answer,
        "image": data_uri(shrunk(image, LARGEST)),
        "size": list(image.size),
        "boxes": [list(box) for box in pair.boxes.get("image", [])],
        "regions": [None if any(x != x for x in box) else [round(x, 2) for x in box] for box in regions.tolist()],
        "states": ids.shape[0],
        "tokens": [_spelled(vlm, int(token)) for token in used],
        "top": places.flatten().tolist(),
        "share": (1000 * probabilities).round().int().flatten().tolist(),
    }


def _spelled(vlm: VLM, token: int) -> str:
    """A vocabulary entry so that spaces show."""
    text = vlm.tokenizer.decode([token]) or str(vlm.tokenizer.convert_ids_to_tokens(token))
    return "".join(SHOWN.get(letter, letter) for letter in text)
