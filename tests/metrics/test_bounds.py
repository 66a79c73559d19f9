"""The bounds hold on random discrete distributions, and unique information on the known gates."""

import math

import numpy as np
import pytest

from vfl.errors import InputError
from vfl.metrics.bounds import (
    binary_entropy,
    distance_bound,
    entropy_tightest,
    entropy_upper,
    error_gap_bound,
    information_gap_bound,
    information_kl,
    information_lower,
)
from vfl.metrics.unique import conditional_information, information_parts, mutual_information, unique_information

CASES = 300
SLACK = 1e-9


def unit(rng, count, size):
    points = rng.normal(size=(count, size))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def entropy(p):
    p = p[p > 0]
    return -(p * np.log(p)).sum()


def random_case(seed):
    """Points of X and X', their distances, a joint distribution and a radius."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 7, size=2)
    first, second = (unit(rng, size, 3) for size in sizes)
    if rng.random() < 0.5:  # a layer that moves little
        second = first + 0.1 * rng.normal(size=first.shape)
        second /= np.linalg.norm(second, axis=1, keepdims=True)
        joint = rng.dirichlet(np.full(len(first) ** 2, 0.1)).reshape(len(first), -1) + 3 * np.eye(len(first))
    else:
        joint = rng.dirichlet(np.full(sizes.prod(), 0.4)).reshape(*sizes)
    return rng, first, second, 1 - first @ second.T, joint / joint.sum(), float(rng.uniform(0.05, 1.5))


@pytest.mark.parametrize("start", range(0, CASES, 30))
def test_the_bounds_hold(start):
    for seed in range(start, start + 30):
        check_case(*random_case(seed))


def check_case(rng, first, second, distance, joint, radius):
    within = distance <= radius
    exceed = float(joint[~within].sum())
    held = within.sum(1)
    information = mutual_information(joint)
    remaining = entropy(joint.ravel()) - entropy(joint.sum(1))
    upper = entropy_upper(exceed, len(second), held.min(), held.max())
    assert held.max() == 0 or remaining <= upper + SLACK

    balls = within @ joint.sum(0)
    product = joint.sum(1)[:, None] * joint.sum(0)
    lower = information_lower(exceed, balls.min(), balls.max())
    tighter = information_kl(exceed, product[within].sum())
    assert lower <= tighter + 1e-6
    assert tighter <= information + 1e-6
    if held.max():
        least = entropy_tightest(upper, len(second), tighter)
        assert remaining <= least + 1e-6
        assert least <= min(upper, math.log(len(second))) + SLACK

    mean = float((joint * distance).sum())
    assert mean <= distance_bound(1 - exceed, radius) + SLACK  # Proposition 1

    # Theorem 1: E[Y | x, x'] linear in both, hence Lipschitz with the matrices' norms
    ours, theirs = rng.normal(size=(2, 2, 3))
    means = (first @ ours.T)[:, None] + second @ theirs.T  # (X, X', 2)
    gap = abs(error(joint, means, axis=1) - error(joint, means, axis=0))
    lipschitz = max(np.linalg.norm(matrix, 2) for matrix in (ours, theirs))
    assert gap <= error_gap_bound(mean, lipschitz) + SLACK

    # Theorem 5: Markov Y - X' - X, ||Y|| <= 1
    targets = unit(rng, 3, 2)
    conditional = rng.dirichlet(np.ones(3), size=len(second)).T  # (Y, X')
    three = conditional[:, None] * joint
    means = np.einsum("yab,yk->abk", three, targets) / np.maximum(joint, 1e-300)[..., None]
    added = conditional_information(three)
    gap = error(joint, means, axis=1) - error(joint, means, axis=0)
    assert -SLACK <= gap <= information_gap_bound(added) + SLACK


def error(joint, means, axis):
    """E ||E[Y | x, x'] - E[Y | kept]||^2, which differs from the MMSE by the same for both."""
    mass = joint.sum(axis, keepdims=True)
    best = (joint[..., None] * means).sum(axis, keepdims=True) / np.maximum(mass, 1e-300)[..., None]
    return float((joint * ((means - best) ** 2).sum(-1)).sum())


def test_degenerate_layers():
    assert entropy_upper(0.0, 4, 1, 1) == 0, "nothing moves and balls hold one point"
    assert entropy_upper(0.0, 4, 4, 4) == pytest.approx(math.log(4)), "a ball that holds all says nothing"
    assert binary_entropy([0, 0.5, 1]) == pytest.approx([0, math.log(2), 0])
    assert information_kl(0.0, 0.25) == pytest.approx(information_lower(0.0, 0.25, 0.25)) == pytest.approx(math.log(4))
    assert information_kl(0.3, 0.7) == pytest.approx(0)
    assert entropy_tightest(3.0, 4, -1.0) == pytest.approx(math.log(4)), "no bound is above log |X|"


def gate(function):
    """P(y, x, x') of a function of two fair bits."""
    cells = [(function(a, b), a, b) for a in (0, 1) for b in (0, 1)]
    table = np.zeros((max(y for y, _, _ in cells) + 1, 2, 2))
    for cell in cells:
        table[cell] += 0.25
    return table


@pytest.mark.parametrize(
    ("function", "bits"),
    [
        (lambda a, b: a ^ b, (0, 0, 0, 1)),
        (lambda a, b: a & b, (0, 0, 0.311278, 0.5)),
        (lambda a, b: b, (1, 0, 0, 0)),
        (lambda a, b: a, (0, 1, 0, 0)),
        (lambda a, b: 2 * a + b, (1, 1, 0, 0)),
    ],
    ids=["xor", "and", "second", "first", "both"],
)
def test_unique_information_of_known_gates(function, bits):
    joint = gate(function)
    unique, unique_other = unique_information(joint), unique_information(joint.transpose(0, 2, 1))
    shared = mutual_information(joint.sum(1)) - unique
    parts = (unique, unique_other, shared, conditional_information(joint) - unique)
    assert [part / math.log(2) for part in parts] == pytest.approx(bits, abs=1e-5)
    named = information_parts(joint)
    told = [named[name] / math.log(2) for name in ("unique", "unique_before", "shared", "synergy")]
    assert told == pytest.approx(bits, abs=1e-5)


def test_two_copies_share_everything():
    copies = np.zeros((2, 2, 2))
    copies[0, 0, 0] = copies[1, 1, 1] = 0.5
    assert unique_information(copies) == pytest.approx(0, abs=1e-9)
    assert mutual_information(copies.sum(1)) == pytest.approx(math.log(2))


def test_unique_information_is_a_minimum():
    """No coupling with the same marginals has less, and it is no more than either information that it is part of."""
    rng = np.random.default_rng(3)
    for _ in range(10):
        table = rng.dirichlet(np.ones(12)).reshape(2, 2, 3)
        unique = unique_information(table)
        assert -1e-12 <= unique <= min(conditional_information(table), mutual_information(table.sum(1))) + 1e-9
        assert mutual_information(table.sum(1)) - mutual_information(table.sum(2)) <= unique + 1e-6
        for _ in range(20):
            moved = table.copy()
            at, other = rng.integers(2), rng.permutation(3)[:2]
            room = min(moved[at, 0, other[0]], moved[at, 1, other[1]]) * rng.random()
            moved[at, 0, other] += (-room, room)
            moved[at, 1, other] += (room, -room)
            assert unique <= conditional_information(moved) + 1e-6


def test_what_is_no_distribution_is_refused():
    with pytest.raises(InputError, match="sum 2"):
        unique_information(np.full((2, 2, 2), 0.25))
