"""Which old rows are mixed into the new ones, and how many.

Rows of what a model can do already, mixed into every epoch, keep it from forgetting that: learned again (experience
replay), or held to what the model said of them before (anchors).
"""

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
