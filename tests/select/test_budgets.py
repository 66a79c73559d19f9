"""Budgets as people write them, and how they are divided."""

import random
from itertools import accumulate

import pytest

from vfl.errors import InputError
from vfl.select.choose.allocation import Tier, allocate, take
from vfl.select.choose.budgets import Budget, parse


@pytest.mark.parametrize(
    ("written", "amount", "unit"),
    [
        ("20%", 0.2, "share"),
        ("12.5 %", 0.125, "share"),
        (0.2, 0.2, "share"),
        (5000, 5000, "rows"),
        ("5000", 5000, "rows"),
        ("5k", 5000, "rows"),
        ("10,000 samples", 10_000, "rows"),
        ("2M answer tokens", 2e6, "answer tokens"),
        ("1.5B tokens", 1.5e9, "tokens"),
        ("300 total tokens", 300, "tokens"),
        ("3e18 FLOPs", 3e18, "FLOPs"),
        ("3 EFLOPs", 3e18, "FLOPs"),
        ("1", 1, "rows"),
        ("100%", 1.0, "share"),
    ],
)
def test_budgets_are_read(written, amount, unit):
    found = parse(written)
    assert found.unit == unit
    assert found.amount == pytest.approx(amount)


@pytest.mark.parametrize(
    "written", ["", "lots", "120%", "0", "-5", "0%", "2.5 rows", "5 apples", "1e3 e4", "nan", "1/5"]
)
def test_what_is_no_budget_is_refused(written):
    with pytest.raises(InputError, match="budget"):
        parse(written)


@pytest.mark.parametrize("written", ["1.0", 1.0, "1.00", True, "True", False, "1e0"])
def test_one_or_all_is_asked(written):
    with pytest.raises(InputError, match=r"100%.* 1"):
        parse(written)


@pytest.mark.parametrize("written", ["1e400", float("inf"), "1e400 tokens", "1e308k rows"])
def test_a_budget_without_end_is_refused(written):
    with pytest.raises(InputError, match="budget"):
        parse(written)


def test_limits():
    assert Budget(0.2, "share").limit(1003, None) == 200
    assert Budget(0.29, "share").limit(100, None) == 29  # .29 * 100 is 28.999... in floating point
    assert Budget(6e12, "FLOPs").limit(10, 1_000_000) == 1_000_000  # 6 * P * T
    assert Budget(6e12, "FLOPs").limit(10, 1_000_000, 4) == 1_500_000
    with pytest.raises(InputError, match="--parameters"):
        Budget(6e12, "FLOPs").limit(10, None)


def costs_of(rng, classes, most):
    return {f"c{n}": [rng.randint(1, most) for _ in range(rng.randint(0, 40))] for n in range(classes)}


def prefix_of(costs):
    def prefix(name, most):
        sums = [one for one in accumulate(costs[name]) if one <= most]
        return len(sums), sums[-1] if sums else 0

    return prefix


@pytest.mark.parametrize("seed", range(60))
def test_a_budget_is_kept_and_missed_by_less_than_one_row(seed):
    rng = random.Random(seed)
    costs = {name: found for name, found in costs_of(rng, rng.randint(1, 6), rng.choice([1, 9, 500])).items() if found}
    totals = {name: sum(one) for name, one in costs.items()}
    names = sorted(costs)
    cut = rng.randint(0, len(names))
    tiers = [Tier({name: rng.random() + 0.1 for name in some}) for some in (names[:cut], names[cut:])]
    limit = rng.randint(1, max(2, round(1.2 * sum(totals.values()))))
    taken = take(limit, totals, tiers, prefix_of(costs))
    spent = sum(sum(costs[name][:count]) for name, count in taken.items())
    assert spent <= limit
    following = [costs[name][taken[name]] for name in names if taken[name] < len(costs[name])]
    assert not following or limit - spent < min(following)


@pytest.mark.parametrize("seed", range(20))
def test_counts_are_met_to_the_row_and_shares_within_one(seed):
    rng = random.Random(seed)
    totals = {f"c{n}": rng.randint(1, 200) for n in range(5)}
    weights = {name: rng.random() + 0.1 for name in totals}
    limit = rng.randint(1, sum(totals.values()))
    taken = take(limit, totals, [Tier(weights)], lambda name, most: (n := min(totals[name], int(most)), n))
    assert sum(taken.values()) == limit
    ideal = allocate(limit, totals, [Tier(weights)])
    assert all(abs(taken[name] - ideal[name]) <= 1.001 for name in totals)


def test_what_a_class_lacks_goes_to_the_others():
    totals = {"a": 2, "b": 100, "c": 100}
    equal = Tier(dict.fromkeys(totals, 1.0))
    assert allocate(62, totals, [equal]) == {"a": 2.0, "b": 30.0, "c": 30.0}
    assert allocate(300, totals, [equal]) == {"a": 2.0, "b": 100.0, "c": 100.0}
    shared = allocate(42, totals, [Tier({"a": 1.0, "b": 3.0, "c": 1.0})])
    assert shared == {"a": 2.0, "b": 30.0, "c": 10.0}


def test_a_later_tier_gets_only_what_is_left():
    totals = {"a": 5, "b": 5, "none": 50}
    tiers = [Tier({"a": 1.0, "b": 1.0}), Tier({"none": 1.0})]
    assert allocate(8, totals, tiers) == {"a": 4.0, "b": 4.0, "none": 0.0}
    assert allocate(20, totals, tiers) == {"a": 5.0, "b": 5.0, "none": 10.0}
