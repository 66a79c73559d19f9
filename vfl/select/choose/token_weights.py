"""Which tokens of an answer need the image: those whose log-probability changes without it (VIG, arXiv 2602.17186).

A token's weight is 1 where |log p(token | image) - log p(token | no image)| is at least the threshold, in nats, and 0
elsewhere: letters that complete a word, habits of phrase, what the question alone tells. That a token's change counts
in both directions is our reading. A row without an image keeps all its tokens, and a row with one of which no token
needs it can't be chosen: it would teach nothing.
"""

import numpy as np

COLUMNS = ("token_hash", "no_image_token_drops")
"""Of the score table."""


def may_teach(threshold: float) -> str:
    """The SQL of rows with a token of weight 1."""
    enough = f"list_filter(no_image_token_drops, lambda x: isfinite(x) AND abs(x::DOUBLE) >= {threshold!r}::DOUBLE)"
    return f"(kind <> 'vision' OR len({enough}) > 0)"


def weights_of(drops: np.ndarray | None, count: int, threshold: float) -> np.ndarray:
    """(count,) weights, 0 or 1, from a row's (count,) drops; None is a row without an image."""
    if drops is None:
        return np.ones(count, np.uint8)
    assert len(drops) == count
    finite = np.nan_to_num(drops.astype(np.float64), posinf=0, neginf=0)
    return (np.abs(finite) >= threshold).astype(np.uint8)
