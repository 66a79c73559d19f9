"""Is the largest layer larger than exchangeable layers would give? A permutation test over layers.

The test of `significance` asks of each layer whether source and control swap differ there. This one asks whether layers
differ: if they are exchangeable within a sample, its outcomes may stand in any order, and the largest layer's rate
beyond the control is one of those that permuted outcomes give. The maximum corrects for having looked at all layers.

Legend: G samples (pairs, or groups of them), S swept layers, N permutations at once.
"""

import numpy as np

from vfl.locate.choosing import has_control
from vfl.locate.curves import Outcomes
from vfl.locate.layer_rule import ChoiceConfig
from vfl.proofs import LayerNull
from vfl.stats import Floats

CELLS = 2_000_000  # permuted at once
ROUNDING = 1e-9  # sums of the same numbers in another order


def layer_null(data: Outcomes, config: ChoiceConfig) -> LayerNull | None:
    """The test of one function's layers; None where no permutations are asked for.

    A layer that disturbs more than others, under the control as well, is not exchangeable with them though it serves
    nothing: this test is read beside that of the layer, which is not misled by it.
    """
    if not config.permutations:
        return None
    layers = np.flatnonzero(data.swept)
    scores = _scores(data, config)[:, layers]
    observed = scores.sum(axis=0)
    largest = float(observed.max())
    highest = maxima(scores, config.permutations, config.seed)
    return LayerNull(
        p=round((1 + int((highest >= largest - ROUNDING).sum())) / (1 + config.permutations), 6),
        layer=int(layers[observed.argmax()]),
        largest=round(largest, 6),
        threshold=round(float(np.quantile(highest, 1 - config.alpha, method="higher")), 6),
        level=1 - config.alpha,
        permutations=config.permutations,
    )


def maxima(scores: Floats, permutations: int, seed: int) -> Floats:
    """(permutations,) the largest column sum of (G, S) scores whose rows are permuted each by itself."""
    varied = scores[np.ptp(scores, axis=1) > 0]  # others are the same in every order
    same = scores.sum(axis=0)[0] - varied.sum(axis=0)[0]
    rng = np.random.default_rng(seed)
    at_once = max(1, CELLS // max(varied.size, 1))
    out = [
        rng.permuted(np.broadcast_to(varied, (n, *varied.shape)), axis=2).sum(axis=1).max(axis=1)
        for n in (min(at_once, permutations - start) for start in range(0, permutations, at_once))
    ]
    highest: Floats = np.concatenate(out) + same
    return highest


def _scores(data: Outcomes, config: ChoiceConfig) -> Floats:
    """(G, L) what each sample adds to a layer's rate beyond the control; without controls, to its rate."""
    single = slice(0, data.num_layers)
    scores = data.by_group(np.nan_to_num(data.changed[:, single])) / data.kept
    if has_control(data, config):
        control = data.control[:, single]
        controlled = ~np.isnan(control[:, data.swept]).all(axis=1)
        scores -= data.by_group(np.nan_to_num(control)) / controlled.sum()
    return scores
