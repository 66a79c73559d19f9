"""Accuracies, intervals and paired differences."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from vfl.errors import InputError
from vfl.evaluate.answers import Answered
from vfl.evaluate.summary import accuracy_of, compare, summarise


def run(flags, group="counting", key="k"):
    return [Answered(f"{group}-{i}", group, "3", bool(flag), "3", key) for i, flag in enumerate(flags)]


def test_groups_are_counted_apart_and_in_order():
    groups = summarise(run([1, 1, 0, 0], "ocr") + run([1, 1, 1], "counting"))
    assert list(groups) == ["ocr", "counting"]
    assert (groups["ocr"].n, groups["ocr"].correct, groups["ocr"].accuracy) == (4, 2, 0.5)
    assert groups["counting"].accuracy == 1.0


@pytest.mark.parametrize(("correct", "n"), [(13, 20), (70, 100), (1, 40)])
def test_intervals_are_the_percentile_bootstraps(correct, n):
    values = np.repeat([1.0, 0.0], [correct, n - correct])
    simulated = bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    accuracy = accuracy_of(correct, n)
    assert abs(accuracy.low - simulated.low) <= 1 / n + 1e-9
    assert abs(accuracy.high - simulated.high) <= 1 / n + 1e-9
    assert accuracy.low <= accuracy.accuracy <= accuracy.high


@pytest.mark.parametrize("n", [1, 10, 200])
def test_no_certainty_where_all_answers_agree(n):
    wrong, right = accuracy_of(0, n), accuracy_of(n, n)
    assert wrong.low == 0.0 < wrong.high < 1
    assert right.high == 1.0 > right.low > 0
    assert right.low == pytest.approx(1 - wrong.high)


def test_a_paired_difference_is_narrower_than_an_unpaired_one():
    rng = np.random.default_rng(0)
    before = rng.random(200) < 0.6
    after = before | (rng.random(200) < 0.1)
    change = compare(run(before), run(after))["counting"]
    assert change.difference == pytest.approx(after.mean() - before.mean())
    assert (change.gained, change.lost) == ((after & ~before).sum(), 0)
    assert 0 < change.low < change.difference < change.high
    simulated = bootstrap(
        (after.astype(float), before.astype(float)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=1,
    ).confidence_interval
    assert abs(change.low - simulated.low) <= 1.5 / 200
    assert abs(change.high - simulated.high) <= 1.5 / 200
    assert compare(run(before), run(after)) == compare(run(before), run(after)), "seeded"


def test_swapping_the_runs_turns_the_difference_around():
    first, second = run([1, 0, 0, 1, 1, 0, 1, 1]), run([1, 1, 0, 0, 1, 1, 1, 1])
    there, back = compare(first, second)["counting"], compare(second, first)["counting"]
    assert there.difference == -back.difference
    assert (there.gained, there.lost) == (back.lost, back.gained)
    assert there.low == pytest.approx(-back.high, abs=0.13)


@pytest.mark.parametrize(("before", "after", "expected"), [(0, 0, 0.0), (1, 1, 0.0), (0, 1, 1.0), (1, 0, -1.0)])
def test_a_difference_without_variation_is_not_certain(before, after, expected):
    change = compare(run([before] * 30), run([after] * 30))["counting"]
    assert change.difference == expected
    assert change.low <= expected <= change.high
    assert change.high - change.low > 0.1


def test_items_are_paired_by_id_and_not_by_place():
    first, second = run([1, 0, 1, 0]), run([1, 0, 1, 0])
    assert compare(first, second[::-1])["counting"].gained == 0


def test_runs_over_other_items_are_refused():
    first = run([1, 0, 1])
    with pytest.raises(InputError, match=r"1 are only in the baseline one \(such as counting-2\)"):
        compare(first, run([1, 0]))
    with pytest.raises(InputError, match=r"2 are only in the new one"):
        compare(first, run([1, 0, 1, 1, 1]))
    with pytest.raises(InputError, match="another question, image, right answer or group"):
        compare(first, run([1, 0, 1], key="other"))
