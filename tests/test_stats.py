"""Intervals and corrections against their definitions and against scipy."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom, binomtest, multinomial

from vfl.stats import (
    Z_95,
    _bootstrap,
    clustered_wilson,
    crossed_difference,
    crossed_rate,
    difference_at_most,
    holm,
    wilson,
)

CASES = [(k, n) for n in (1, 2, 7, 20, 1000) for k in range(0, n + 1, max(1, n // 7))]


def test_wilson_is_scipys_and_contains_the_rate():
    successes, trials = (np.array(column, float) for column in zip(*CASES, strict=True))
    lows, highs = wilson(successes, trials)
    for k, n, low, high in zip(successes, trials, lows, highs, strict=True):
        expected = binomtest(int(k), int(n)).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert 0 <= low <= k / n <= high <= 1


def test_wilsons_bounds_are_the_rates_that_lie_one_z_away():
    """Its definition (Wilson 1927): |rate - p| = z sqrt(p (1 - p) / n) at both bounds p."""
    successes, trials = (np.array(column, float) for column in zip(*CASES, strict=True))
    rate = successes / trials
    for bound, reached in zip(wilson(successes, trials), (successes > 0, successes < trials), strict=True):
        z = np.abs(rate - bound)[reached] / np.sqrt(bound * (1 - bound) / trials)[reached]
        np.testing.assert_allclose(z, Z_95, rtol=1e-9)


def test_wilson_mirrors_narrows_and_keeps_its_shape():
    successes, trials = np.array([[0.0, 3, 10]]), np.array([[10.0, 10, 10]])
    low, high = wilson(successes, trials)
    assert low.shape == high.shape == (1, 3)
    mirrored_low, mirrored_high = wilson(trials - successes, trials)
    np.testing.assert_allclose((mirrored_low, mirrored_high), (1 - high, 1 - low), atol=1e-15)
    assert (low[0, 0], high[0, 2]) == (0.0, 1.0), "exactly"
    narrow_low, narrow_high = wilson(successes * 10, trials * 10)
    assert ((narrow_high - narrow_low) < (high - low)).all()


def test_no_trials_say_nothing():
    low, high = wilson(np.zeros(2), np.zeros(2))
    assert (low.tolist(), high.tolist()) == ([0, 0], [1, 1])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.93])
def test_wilson_covers_the_rate_about_as_often_as_it_says(rate):
    """Summed exactly over all outcomes; the coverage of one n swings with it, the mean over many does not."""
    coverage = []
    for n in range(20, 60):
        outcomes = np.arange(n + 1.0)
        low, high = wilson(outcomes, np.full(n + 1, float(n)))
        coverage.append(binom.pmf(outcomes, n, rate)[(low <= rate) & (rate <= high)].sum())
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.015)


def adjusted(p):
    """Holm's adjusted p values of one family: the i-th smallest times what is left, and never less than one before."""
    order = sorted(range(len(p)), key=lambda index: p[index])
    steps = [min(1.0, (len(p) - place) * p[index]) for place, index in enumerate(order)]
    out = [0.0] * len(p)
    for index, value in zip(order, itertools.accumulate(steps, max), strict=True):
        out[index] = value
    return out


def test_clusters_of_one_are_wilsons_interval_and_repeated_samples_tell_nothing_new():
    flags = np.array([[0, 1, 1], [1, 1, 0], [1, 1, 0], [0, 1, 0], [1, 1, 0]], float)
    plain = wilson(flags.sum(0), np.full(3, 5.0))
    assert np.allclose(clustered_wilson(flags, "abcde"), plain)
    twice = clustered_wilson(np.repeat(flags, 2, axis=0), "aabbccddee")
    assert np.allclose(twice[0][1], plain[0][1]), "where all agree a cluster is one sample"
    assert (twice[0] <= plain[0]).all()
    assert (twice[1] >= plain[1]).all()
    both = clustered_wilson(np.array([[1.0], [0.0]] * 5), list("aabbccddee"))
    most = wilson(np.array([5.0]), np.array([10.0]))
    assert both[0] <= most[0], "never more samples than there are"
    assert both[1] >= most[1]


@pytest.mark.parametrize("alike", [0.0, 0.1, 0.3])
@pytest.mark.parametrize(("groups", "pairs"), [(10, 12), (17, 6), (30, 6)])
def test_intervals_of_groups_cover_what_they_say(groups, pairs, alike):
    """Shares of groups drawn from a beta distribution whose intraclass correlation is `alike`."""
    rng = np.random.default_rng(groups)
    names = [group for group in range(groups) for _ in range(pairs)]
    for rate in (0.3, 0.5, 0.7):
        spread = (1 - alike) / alike if alike else None
        shares = (
            rng.beta(rate * spread, (1 - rate) * spread, (1500, groups)) if spread else np.full((1500, groups), rate)
        )
        drawn = (rng.random((1500, groups, pairs)) < shares[:, :, None]).reshape(1500, -1).T.astype(float)
        low, high = clustered_wilson(drawn, names)
        # 1,500 draws of .95 lie within .937 and .963 in 98 of 100 tries; where groups say nothing, few are cautious.
        assert 0.93 < np.mean((low <= rate) & (rate <= high)) < (0.99 if not alike else 0.975)


@pytest.mark.parametrize("rate", [0.3, 0.9])
def test_clustered_intervals_cover_where_plain_ones_do_not(rate):
    rng = np.random.default_rng(0)
    pairs, runs = 60, 400
    agree = rng.random((runs, pairs)) < 0.8  # both answers of a pair are mostly alike
    first = rng.random((runs, pairs)) < rate
    second = np.where(agree, first, rng.random((runs, pairs)) < rate)
    names = [pair for pair in range(pairs) for _ in range(2)]
    samples = np.stack([first, second], axis=2).reshape(runs, -1).T.astype(float)  # (2 pairs, runs)
    covered = {}
    for name, interval in (
        ("clustered", clustered_wilson(samples, names)),
        ("plain", wilson(samples.sum(0), np.full(runs, 2.0 * pairs))),
    ):
        covered[name] = float(np.mean((interval[0] <= rate) & (rate <= interval[1])))
    assert covered["clustered"] > 0.93
    assert covered["plain"] < 0.90


def test_holm_steps_down():
    p = np.array([[0.01, 0.04, 0.03, 0.005], [0.012, 0.017, 0.02, 0.9]])
    # 4 * .005, 3 * .01 pass, 2 * .03 fails and stops; 4 * .012, 3 * .017 fails.
    np.testing.assert_array_equal(holm(p, 0.05), [[True, False, False, True], [True, False, False, False]])


@pytest.mark.parametrize("columns", [1, 2, 5, 28])
def test_holm_is_what_its_adjusted_values_say(columns):
    p = np.random.default_rng(columns).random((200, columns)) ** 4
    for alpha in (0.01, 0.05, 0.3):
        expected = np.array([adjusted(row) for row in p.tolist()]) <= alpha
        np.testing.assert_array_equal(holm(p, alpha), expected)
        assert 0 < expected.mean() < 1


def test_holm_lies_between_bonferroni_and_no_correction():
    p = np.random.default_rng(3).random((300, 6)) ** 3
    falls = holm(p, 0.05)
    assert (falls >= (p * 6 <= 0.05)).all()
    assert (falls <= (p <= 0.05)).all()
    assert falls.sum() > (p * 6 <= 0.05).sum()


def test_the_order_of_hypotheses_does_not_matter_to_holm():
    rng = np.random.default_rng(4)
    p = np.round(rng.random((50, 7)) ** 3, 2)  # with ties
    order = rng.permutation(7)
    np.testing.assert_array_equal(holm(p[:, order], 0.05), holm(p, 0.05)[:, order])


def test_holm_without_hypotheses_or_rows():
    assert holm(np.zeros((2, 0)), 0.05).shape == (2, 0)
    assert holm(np.zeros((0, 3)), 0.05).shape == (0, 3)


def crossed(rng, runs, items, mean, run_sd, item_sd):
    """Outcomes of runs and items whose effects add up in log odds."""
    effects = run_sd * rng.normal(size=(runs, 1)) + item_sd * rng.normal(size=(1, items))
    return (rng.random((runs, items)) < 1 / (1 + np.exp(-mean - effects))).astype(float)


def test_crossed_intervals_cover_the_rate_of_all_runs_and_items():
    """In simulated studies; the percentiles of the bootstrap alone hold it far too seldom, so the guard has to work."""
    alone, studies = 0, 80
    settings = [(2, 60, 0.0, 1.0), (5, 60, 2.5, 1.0), (3, 10, 3.0, 0.3)]
    for runs, items, mean, run_sd in settings:
        rng = np.random.default_rng(runs)
        truth = crossed(rng, 1500, 1500, mean, run_sd, 1.0).mean()
        held = 0
        for _ in range(studies):
            outcomes = crossed(rng, runs, items, mean, run_sd, 1.0)
            rate, low, high = crossed_rate([outcomes], 200)
            assert 0 <= low <= rate <= high <= 1
            held += low <= truth <= high
            percentiles = _bootstrap([outcomes], 200)
            alone += percentiles[0] <= truth <= percentiles[1]
        assert held >= 0.9 * studies, (runs, items)
    assert alone < 0.85 * len(settings) * studies


def test_crossed_changes_cover_the_change_of_all_runs_and_items():
    rng = np.random.default_rng(6)

    def changes(runs, items):
        return crossed(rng, runs, items, -1.5, 1.0, 1.0) - (rng.random((runs, items)) < 0.05)

    truth = changes(1500, 1500).mean()
    held = 0
    for _ in range(80):
        mean, low, high = crossed_difference([changes(3, 60)], 200)
        assert -1 <= low <= mean <= high <= 1
        held += low <= truth <= high
    assert held >= 0.9 * 80


@pytest.mark.parametrize("runs", [1, 2, 5])
@pytest.mark.parametrize("items", [1, 2, 100])
def test_outcomes_that_agree_leave_wilsons_interval_over_the_items(runs, items):
    """Runs share their items, so more runs that agree are no more items."""
    ends = wilson(np.array([0.0, items]), np.array([float(items)] * 2))
    for value in (0, 1):
        block = np.full((runs, items), float(value))
        assert crossed_rate([block])[1:] == pytest.approx((ends[0][value], ends[1][value]))
    assert crossed_difference([np.zeros((runs, items))]) == pytest.approx((0.0, -ends[1][0], ends[1][0]))


def test_crossed_intervals_mirror_and_widen_where_runs_differ():
    rng = np.random.default_rng(1)
    alike = np.tile((rng.random(200) < 0.7).astype(float), (5, 1))
    apart = np.stack([(rng.random(200) < share).astype(float) for share in (0.5, 0.6, 0.7, 0.8, 0.9)])
    narrow, wide = crossed_rate([alike]), crossed_rate([apart])
    assert wide[2] - wide[1] > 1.3 * (narrow[2] - narrow[1])
    rate, low, high = crossed_rate([1 - apart])
    assert (1 - rate, 1 - high, 1 - low) == pytest.approx(wide)
    assert crossed_rate([apart]) == wide, "the same again"
    # A block twice says no more of runs, and weighs as it did.
    assert crossed_rate([apart, apart])[0] == pytest.approx(wide[0])
    mean, low, high = crossed_difference([apart - alike])
    assert crossed_difference([alike - apart]) == pytest.approx((-mean, -high, -low), abs=0.01)


@pytest.mark.parametrize("n", [20, 60])
@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_a_difference_at_the_margin_is_seldom_bounded_below_it(n: int, alpha: float) -> None:
    """The exact size: all counts of gains and losses, with their chances where the truth is the margin."""
    gained, lost = (counts.ravel() for counts in np.meshgrid(np.arange(n + 1), np.arange(n + 1)))
    possible = gained + lost <= n
    gained, lost = gained[possible], lost[possible]
    place = np.arange(n)[:, None]
    gains, losses = (place < gained), (place >= n - lost)
    below = difference_at_most(gains.astype(float), losses.astype(float), range(n), alpha) < 0.1
    assert below.any()
    for losing in (0.0, 0.01, 0.1, 0.3, 0.45):
        chances = multinomial.pmf(
            np.stack([gained, lost, n - gained - lost], axis=1), n, [0.1 + losing, losing, 0.9 - 2 * losing]
        )
        assert chances[below].sum() <= alpha, losing


def test_samples_of_a_cluster_bound_less() -> None:
    gains = (np.arange(60) < 6).astype(float)[:, None]
    losses = np.zeros_like(gains)
    alone = difference_at_most(gains, losses, range(60), 0.05)
    in_scenes = difference_at_most(gains, losses, (np.arange(60) // 6).tolist(), 0.05)
    assert 0.1 < alone[0] < in_scenes[0] < 1
    nothing = difference_at_most(losses, losses, (np.arange(60) // 6).tolist(), 0.05)
    assert nothing[0] == pytest.approx(1 - 0.05 ** (1 / 10)), "ten scenes that agree are ten samples"
    everything = difference_at_most(losses + 1, losses, range(60), 0.05)
    assert everything[0] == 1
