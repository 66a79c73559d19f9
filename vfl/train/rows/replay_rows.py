"""Which old rows are mixed into the new ones, and how many.

Rows of what a model can do already, mixed into every epoch, keep it from forgetting that: learned again (experience
replay), or held to what the model said of them before (anchors).
"""

from collections.abc import Sequence
from random import Random

from vfl.errors import InputError
from vfl.train.rows.draw import drawn


def replayed(
    new: int, pool: int, share: float, seed: int, *, others: float = 0.0, setting: str = "data.replay"
) -> list[int]:
    """Rows of a pool that join `new` rows, so that they are `share` of all, to the nearest row.

    Drawn without repeats while the pool lasts; a smaller pool is gone through again, each time in another order.

    Args:
        others: share of all that old rows of another kind take.
        setting: what asks for them, for messages.

    Raises:
        InputError: for an empty pool or a share that leaves no room for either.
    """
    if not 0 < share < 1:
        raise InputError(f"{setting}.share is {share}; expected a share of each epoch, above 0 and below 1.")
    if pool < 1:
        raise InputError(f"The data of {setting} has no usable row. Give at least one, or leave it out.")
    wanted = max(1, round(new * share / (1 - share - others)))
    return drawn(pool, wanted, Random(f"replay/{seed}"))


def replayed_in_halves(
    new: int, favoured: Sequence[bool], share: float, seed: int, *, others: float = 0.0, setting: str = "data.replay"
) -> list[int]:
    """As `replayed`, half of the old rows from those that are favoured and half from the others.

    What new rows are about is what they make a model forget first: its own old questions want more room than an even
    draw over all old ones gives them.

    Args:
        favoured: of each row of the pool.

    Raises:
        InputError: where all or none of the pool's rows are favoured, and as `replayed`.
    """
    halves = [[row for row, own in enumerate(favoured) if own == wanted] for wanted in (True, False)]
    if not all(halves):
        raise InputError(
            f"{'All' if halves[0] else 'None'} of the old rows of {setting} are of the functions that {setting}.favour "
            "names, so there are no halves to draw from. Leave favour out, or add rows of other functions."
        )
    chosen = []
    for half in halves:
        rest = others + share / 2
        chosen += [half[n] for n in replayed(new, len(half), share / 2, seed, others=rest, setting=setting)]
    return chosen
