"""No deletion of fewer samples than the lower bound loses a layer, and as many as the upper bound can."""

from itertools import combinations

import numpy as np
import pytest

from vfl.locate.choosing import choice_of
from vfl.locate.curves import Outcomes
from vfl.locate.deletion import deletion, without
from vfl.locate.layer_rule import ChoiceConfig, single_blocks, window_blocks

L = 4
EASY = ChoiceConfig(alpha=0.25, min_kept=4, cap=2)  # 4 samples of 4 layers can be significant


def sample(rng: np.random.Generator, kind: str) -> Outcomes:
    """Ten samples of a model that serves the function in one layer or two, or in any of two."""
    blocks = [*single_blocks(L), *window_blocks(L)]
    size = 2 if kind == "groups" else 1
    num_pairs = 10 * size
    serving = [1, 2] if rng.random() < 0.5 else [2]
    fate = np.repeat(rng.random(10), size)
    rates = np.where(np.isin(range(L), serving), rng.uniform(0.6, 1.0, L), rng.uniform(0.0, 0.3, L))
    alone = (rng.random((num_pairs, L)) + fate[:, None]) / 2 < rates
    disrupted = rng.random((num_pairs, L)) < 0.1
    together = [range(first, last + 1) for first, last in blocks]
    if kind == "windows":
        changed = np.array([[set(block) >= {1, 2} and fate[p] < 0.9 for block in together] for p in range(num_pairs)])
    else:
        changed = np.array([alone[:, list(block)].any(axis=1) for block in together]).T
    control = np.array([disrupted[:, list(block)].any(axis=1) for block in together]).T.astype(float)
    if kind == "few controls":
        control[rng.permutation(num_pairs)[:2]] = np.nan
    changed = (changed | (np.nan_to_num(control) > 0)).astype(float)
    return Outcomes(
        function="f",
        num_layers=L,
        pairs=num_pairs,
        accuracy=1.0,
        pair_ids=tuple(f"{n:02d}" for n in range(num_pairs)),
        blocks=tuple(blocks),
        changed=changed,
        followed=changed,
        control=control,
        effect=changed,
        unfiltered=None,
        groups=tuple(f"g{n // 2}" for n in range(num_pairs)) if kind == "groups" else (),
    )


def radius(data: Outcomes, layer: int, config: ChoiceConfig) -> int:
    """The truth, by trying all deletions."""
    for size in range(1, data.samples):
        for gone in combinations(range(data.samples), size):
            if layer not in choice_of(without(data, gone), config).layers:
                return size
    raise AssertionError("one sample names nothing")


@pytest.mark.parametrize("kind", ["pairs", "groups", "windows", "few controls"])
def test_the_truth_lies_between_the_bounds(kind: str) -> None:
    rng = np.random.default_rng(0)
    gaps, tried = [], 0
    while tried < 8:
        data = sample(rng, kind)
        choice = choice_of(data, EASY)
        if not choice.layers:
            continue
        tried += 1
        bounds = deletion(data, choice, choice.layers, EASY)
        assert bounds is not None
        for place, layer in enumerate(choice.layers):
            truth = radius(data, layer, EASY)
            assert bounds.at_least[place] <= truth <= bounds.at_most[place], (choice, bounds)
            gaps.append((bounds.at_least[place], truth, bounds.at_most[place]))
    assert any(low > 1 for low, _, _ in gaps), f"a bound of 1 proves nothing: {gaps}"
    assert np.mean([high == truth for _, truth, high in gaps]) >= 0.5


def test_a_layer_that_all_pairs_need_is_lost_when_too_few_are_left() -> None:
    changed = np.zeros((60, 10))
    changed[:, 5] = 1
    data = sample(np.random.default_rng(0), "pairs")
    data = Outcomes(
        **{
            **vars(data),
            "num_layers": 10,
            "pair_ids": tuple(f"{n:02d}" for n in range(60)),
            "blocks": tuple(single_blocks(10)),
            **dict.fromkeys(("changed", "followed", "effect"), changed),
            "control": np.zeros((60, 10)),
        }
    )
    config = ChoiceConfig()
    bounds = deletion(data, choice_of(data, config), [5], config)
    assert bounds is not None
    assert (bounds.at_least, bounds.at_most) == ([53], [53]), "seven pairs give .05 / 10 at no layer, eight do"


def test_layers_of_a_users_own_have_no_bound() -> None:
    data = sample(np.random.default_rng(0), "pairs")
    assert deletion(data, choice_of(data, EASY), [3], EASY) is None
