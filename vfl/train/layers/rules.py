"""From one number a layer to the layers that are trained."""

import random
from collections.abc import Sequence

from vfl.errors import InputError


def highest(scores: Sequence[float], count: int, barred: Sequence[int] = ()) -> list[int]:
    """The `count` layers with the highest scores, ascending; of equals the lower layers.

    Args:
        barred: layers that may not be taken; fewer than `count` come out where too few others are left.

    Raises:
        InputError: for a count that the model does not have.
    """
    check_count(count, len(scores))
    free = [layer for layer in range(len(scores)) if layer not in set(barred)]
    return sorted(sorted(free, key=lambda layer: (-scores[layer], layer))[:count])


def evenly_spaced(count: int, num_layers: int) -> list[int]:
    """`count` layers from the first on, evenly apart (arXiv 2412.12785 trains such layers).

    Raises:
        InputError: for a count that the model does not have.
    """
    check_count(count, num_layers)
    return [place * num_layers // count for place in range(count)]


def drawn(count: int, num_layers: int, seed: int) -> list[int]:
    """`count` layers of a seed, ascending.

    Raises:
        InputError: for a count that the model does not have.
    """
    check_count(count, num_layers)
    return sorted(random.Random(seed).sample(range(num_layers), count))


def check_count(count: int, num_layers: int) -> None:
    """Raises InputError unless the model has so many layers."""
    if not 1 <= count <= num_layers:
        raise InputError(
            f"{count} layers were asked for (layers.count), but the model has {num_layers}. Give 1 to {num_layers}."
        )


def shares(scores: Sequence[float]) -> list[float]:
    """Scores as shares of their sum; all equal where they are all nothing."""
    total = sum(scores)
    return [score / total if total else 1 / len(scores) for score in scores]
