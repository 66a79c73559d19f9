"""Which old rows are mixed into the new ones, and how many.

Rows of what a model can do already, mixed into every epoch, keep it from forgetting that (experience replay).
"""

from random import Random

from vfl.errors import InputError
from vfl.train.rows.draw import drawn


def replayed(new: int, pool: int, share: float, seed: int) -> list[int]:
    """Rows of a pool that join `new` rows, so that they are `share` of all, to the nearest row.

    Drawn without repeats while the pool lasts; a smaller pool is gone through again, each time in another order.

    Raises:
        InputError: for an empty pool or a share that leaves no room for either.
    """
    if not 0 < share < 1:
        raise InputError(f"data.replay.share is {share}; expected a share of each epoch, above 0 and below 1.")
    if pool < 1:
        raise InputError("The data to replay (data.replay) has no usable row. Give at least one, or leave replay out.")
    wanted = max(1, round(new * share / (1 - share)))
    return drawn(pool, wanted, Random(f"replay/{seed}"))
