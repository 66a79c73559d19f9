"""The benchmark of localisation methods: smallest sets, layouts, planting, scores, and how these are judged."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

import vfl
from experiments.localisation.asked import Kept, asked
from experiments.localisation.by_rule import knocked_out
from experiments.localisation.layouts import FUNCTIONS, LAYOUTS, NUM_LAYERS, either
from experiments.localisation.methods import SCORES
from experiments.localisation.naming import Hits, best_possible, best_share, brier, by_share, confidence, hits
from experiments.localisation.planting import counted, replanted
from experiments.localisation.tables import method_table, named_table, truth_table
from experiments.localisation.train import Replanting, recipe_of
from experiments.localisation.truth import Layers, Truth, largest_without, smallest_sets, truth_of
from vfl.engine.plan import Plan
from vfl.models.vlm import VLM
from vfl.testbeds.micro.data import make_batch
from vfl.testbeds.micro.forward import tapped
from vfl.testbeds.micro.tap import NONE, OTHER, OWN


def truth_with(*sets: list[int]) -> Truth:
    return Truth(list(sets), [1.0] * len(sets), [[1.0] * len(layers) for layers in sets], [], 0, 0, 1)


@pytest.fixture(scope="module")
def planted() -> VLM:
    return vfl.load("embedded")


@pytest.fixture(scope="module")
def counting(planted: VLM) -> list[Kept]:
    return asked(planted, ["counting"], pairs=3, seed=4)["counting"]


@pytest.mark.parametrize("seed", range(6))
def test_the_smallest_sets_are_those_that_trying_all_sets_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = [frozenset(rng.choice(7, size=size, replace=False).tolist()) for size in rng.integers(1, 5, size=4)]
    truth = {layers for layers in drawn if not any(other < layers for other in drawn)}
    tried: set[Layers] = set()

    def rate(sets: Sequence[Layers]) -> list[float]:
        tried.update(sets)
        return [float(any(part <= layers for part in truth)) for layers in sets]

    assert set(smallest_sets(7, rate, 0.5)) == truth
    assert len(tried) < 2**7


def test_nothing_is_found_where_not_even_all_layers_change_an_answer() -> None:
    assert smallest_sets(5, lambda sets: [0.4] * len(sets), 0.5) == []


def test_the_largest_sets_without_some_are_all_of_them() -> None:
    sets = [frozenset({0, 1}), frozenset({2}), frozenset({1, 3})]
    free = [
        frozenset(layers)
        for size in range(6)
        for layers in combinations(range(5), size)
        if not any(part <= set(layers) for part in sets)
    ]
    assert set(largest_without(5, sets)) == {layers for layers in free if not any(layers < other for other in free)}


def test_sets_that_are_runs_can_be_shown_by_swapping_runs() -> None:
    def identifiable(*sets: list[int]) -> bool:
        return truth_with(*sets).identifiable

    assert identifiable([3])
    assert identifiable([2, 3], [3, 4], [2, 4])  # each of its layers is in a run
    assert not identifiable([2, 5])
    assert not identifiable([2, 3], [3, 5])
    assert not identifiable()


def test_what_a_set_does_not_need_and_sets_too_wide_are_grey() -> None:
    truth = Truth([[1, 2, 8], [0, 3, 4, 5, 6]], [0.9, 0.8], [[0.9, 0.5, 0.1], [0.8] * 5], [9], 0, 0, 1)
    assert truth.layers == [1, 2]
    assert truth.grey == [0, 3, 4, 5, 6, 8, 9]
    assert not Truth([[0, 1, 2, 3, 4]], [1.0], [[1.0] * 5], [], 0, 0, 1).identifiable


def test_a_majority_of_the_layers_that_serve_alone_decides() -> None:
    variants = either(2, 3, 4)
    assert {tuple(sorted(variant.own)) for variant in variants if variant.none} == {(2,), (3,), (4,)}
    assert all(len(variant.own) > len(variant.other) for variant in variants)
    assert {tuple(sorted(variant.other)) for variant in variants if variant.other} == {(2,), (3,), (4,)}


@pytest.mark.parametrize("name", LAYOUTS)
def test_planted_questions_read_what_their_layout_says(name: str) -> None:
    layout, recipe = LAYOUTS[name], recipe_of(name, Path("unused"), 100).model_copy(update={"batch": 6})
    training = Replanting(recipe, layout)
    plain = make_batch(recipe, training.packer, 0)
    batch = replanted(plain, layout, NUM_LAYERS, np.random.default_rng(0))
    assert batch.readings is not None
    rows, start = batch.rows, batch.rows.labels.shape[1] - batch.rows.blocks.shape[1]
    planted = 0
    for row in range(len(rows.blocks)):
        for number in range(1, int(rows.blocks[row].max()) + 1):
            tokens = torch.nonzero(rows.blocks[row] == number).flatten()
            readings = batch.readings[:, row, tokens]
            assert torch.equal(readings, readings[:, :1].expand_as(readings))  # equal for all tokens of a question
            function = FUNCTIONS[int(rows.functions[row, tokens[0]])]
            weights = rows.weights[row, start + tokens]
            possible = [
                variant
                for variant in layout.variants[function]
                if all(readings[layer, 0] == OWN for layer in variant.own)
                and all(readings[layer, 0] == NONE for layer in variant.none)
                and all(readings[layer, 0] == OTHER for layer in variant.other)
            ]
            assert possible or bool((readings == OWN).all())
            assert bool((weights > 0).any())
            if not bool((readings == OWN).all()):
                planted += 1
                assert possible
    assert planted > 10
    with tapped(training.model):
        loss, _ = training.loss(plain)
    loss.backward()
    assert bool(loss.isfinite())
    assert all(head.weight.grad is not None for head in training.heads)
    assert len(training.heads) == len(layout.decoys)


def test_the_parts_of_an_answer_are_its_first_half_and_the_rest() -> None:
    assert counted(4, "first").tolist() == [True, False, False, False]  # three letters and the end
    assert (counted(9, "first") ^ counted(9, "rest")).all()
    assert counted(2, "all").all()


def test_every_score_but_attention_and_lens_finds_a_layer_that_counts_alone(planted: VLM, counting: list[Kept]) -> None:
    assert len(counting) == 3
    for method, score in SCORES.items():
        values = score(planted, counting)
        assert values.shape == (3, 10), method
        assert np.isfinite(values).all(), method
        if not method.startswith(("attention", "logit")):  # these may well name others
            assert values.mean(0)[5] == values.mean(0).max() > 0, method


def test_a_gradient_of_the_swap_is_what_a_small_step_gives(planted: VLM, counting: list[Kept]) -> None:
    from experiments.localisation.methods import _log_odds

    pair = counting[0]
    slots = pair.own.slots()
    own = [
        (keys[:, :, slots], values[:, :, slots]) for keys, values in zip(pair.own.keys, pair.own.values, strict=True)
    ]
    odds = _log_odds(planted, pair, own)
    by_engine = vfl.sweep(planted, pair.target, [Plan.own()], answers=pair.answers).answer_logprobs[0]
    assert float(odds.detach()) == pytest.approx(float(by_engine[0] - by_engine[1]), abs=1e-4)
    whole = [
        (keys[:, :, slots], values[:, :, slots])
        for keys, values in zip(pair.other.keys, pair.other.values, strict=True)
    ]
    every = Plan.swap(range(10), pair.other)
    by_engine = vfl.sweep(planted, pair.target, [every], answers=pair.answers).answer_logprobs[0]
    assert float(_log_odds(planted, pair, whole).detach()) == pytest.approx(
        float(by_engine[0] - by_engine[1]), abs=1e-4
    )


def test_integrated_gradients_add_up_to_what_the_whole_swap_takes(planted: VLM, counting: list[Kept]) -> None:
    from experiments.localisation.methods import _attributed

    steps = [(step + 0.5) / 64 for step in range(64)]
    pair = counting[0]
    plans = [Plan.own(), Plan.swap(range(10), pair.other)]
    own, all_swapped = vfl.sweep(planted, pair.target, plans, answers=pair.answers).answer_logprobs
    taken = float((own[0] - own[1]) - (all_swapped[0] - all_swapped[1]))
    # Layer 5 alone counts, so that the sum of absolute values is nearly the sum.
    assert _attributed(planted, pair, steps).sum() == pytest.approx(taken, rel=0.1)


def test_the_truth_of_a_function_of_one_layer_is_that_layer(planted: VLM, counting: list[Kept]) -> None:
    truth = truth_of(planted, counting)
    assert truth.sets == [[5]]
    assert truth.layers == [5]
    assert truth.identifiable
    assert truth.broken == 0


def test_knockout_by_the_map_s_rule_needs_enough_pairs(planted: VLM, counting: list[Kept]) -> None:
    entry = knocked_out(planted, "counting", counting)
    assert entry.layers == []  # three pairs can't be significant
    assert entry.changed[5] is not None
    assert entry.control is None


def test_grey_layers_are_neither_right_nor_wrong() -> None:
    truth = {"layers": [2, 3], "grey": [5]}
    assert hits([2, 5, 7], truth) == Hits(right=1, wrong=1, true=2)
    assert hits([], truth).precision != hits([], truth).precision  # NaN
    assert (Hits(1, 1, 2) + Hits(1, 0, 1)).precision == pytest.approx(2 / 3)
    assert Hits(2, 0, 2).f1 == 1
    assert brier(np.array([0, 0, 1, 0.5, 0, 0.9]), truth) == pytest.approx([0, 0, 0, 0.25, 0])


def test_scores_name_what_reaches_a_share_of_the_largest() -> None:
    assert by_share(np.array([0.1, 1.0, 0.5]), 0.5) == [1, 2]
    assert by_share(np.zeros(3), 0.5) == []
    cell = {"scores": {"m": [[0.2, 1.0, 0.6]] * 4}, "truth": {"layers": [1, 2], "grey": []}}
    assert best_share([cell], "m") == 0.25  # the lowest that leaves layer 0 out
    assert best_possible(cell["scores"]["m"], cell["truth"]) == Hits(2, 0, 2)
    assert best_possible([[0.0, 1.0, 0.0]], cell["truth"]) == Hits(1, 0, 2)  # nothing is named for a score of 0
    assert confidence([[0.0, 1.0], [1.0, 0.9]] * 10, 0.9)[1] > 0.9


def test_tables_leave_the_model_that_sets_the_shares_out_of_the_totals() -> None:
    def model(layers: list[int]) -> dict:
        scores = np.zeros((2, 4))
        scores[:, layers] = 1
        named = {"layers": layers, "stability": [1.0] * len(layers), "chosen_by": "single"}
        cell = {
            "kept": 2,
            "planted": [1],
            "truth": {"sets": [[1]], "rates": [1.0], "grey": [], "asked": 3, "broken": 0, "pairs": 2, "layers": [1]},
            "identifiable": True,
            "named": {"swap, auto": named, "knockout, by the same rule": named},
            "scores": {method: scores.tolist() for method in SCORES},
        }
        seconds = dict.fromkeys(("swap, auto", "knockout, by the same rule", *SCORES), 4.0)
        return {"layers": 4, "pairs": 2, "seconds": seconds, "functions": {"counting": cell}}

    results = {"embedded": model([1]), "right": model([1]), "wrong": model([2])}
    line = method_table(results).splitlines()[2]
    assert line == "| swap, auto |  | 0.50 | 0.50 |  | 0.250 | 2.00 | 1.00 / 1.00 | 0.00 / 0.00 |"
    assert "| wrong | counting | 1 | 2 | 2 |" in named_table(results)
    assert "| right | counting | 1 | {1} 100% | 1 | none | yes | 3 | 0 |" in truth_table(results)
