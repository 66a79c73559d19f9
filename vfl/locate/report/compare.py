"""Function maps of several models side by side: peaks at relative depth, and whether the functions' order agrees."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan
from pathlib import Path

from scipy.stats import kendalltau

from vfl.errors import InputError
from vfl.functionmap import FunctionMap, other_pixels
from vfl.report.words import distinct_labels

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Agreement:
    """How far two maps put the functions that both have in the same order."""

    first: str
    second: str
    shared: int  # functions with a peak in both
    tau: float | None  # Kendall's tau-b; None below two shared functions, or where all peaks of a map are level

    @property
    def tau_text(self) -> str:
        return "–" if self.tau is None else f"{self.tau:+.2f}"


@dataclass(frozen=True)
class Comparison:
    """Maps in the order given; `peaks[m][function]` is peak / (num_layers - 1), missing where there is no peak."""

    labels: tuple[str, ...]
    maps: tuple[FunctionMap, ...]
    functions: tuple[str, ...]  # those with a peak somewhere, by mean relative depth
    peaks: tuple[dict[str, float], ...]
    agreements: tuple[Agreement, ...]

    @property
    def mean_tau(self) -> float | None:
        """Mean of the pairs that have a tau; None if none has."""
        known = [pair.tau for pair in self.agreements if pair.tau is not None]
        return sum(known) / len(known) if known else None


def compare_maps(paths: Sequence[Path]) -> Comparison:
    """Load the maps and compare them; InputError for fewer than two, or two maps without a function in common."""
    if len(paths) < 2:
        raise InputError(
            f"{len(paths)} map given; comparing takes at least two (map.json or the folder that holds it)."
        )
    maps = tuple(FunctionMap.load(path) for path in paths)
    labels = distinct_labels([fmap.model.id for fmap in maps], paths)
    if warning := other_pixels(labels, [fmap.model for fmap in maps]):
        logger.warning("%s", warning)
    peaks = tuple(fmap.relative_peaks() for fmap in maps)
    names = {name for depths in peaks for name in depths}
    if not names:
        raise InputError("None of these maps has a function whose layers were found: there is nothing to compare.")

    def mean_depth(name: str) -> float:
        at = [depths[name] for depths in peaks if name in depths]
        return sum(at) / len(at)

    return Comparison(
        labels=labels,
        maps=maps,
        functions=tuple(sorted(names, key=lambda name: (mean_depth(name), name))),
        peaks=peaks,
        agreements=tuple(
            _agreement(labels[a], labels[b], peaks[a], peaks[b]) for a, b in combinations(range(len(maps)), 2)
        ),
    )


def _agreement(first: str, second: str, a: dict[str, float], b: dict[str, float]) -> Agreement:
    shared = sorted(a.keys() & b.keys())
    tau = float("nan")
    if len(shared) > 1:
        tau = float(kendalltau([a[name] for name in shared], [b[name] for name in shared]).statistic)
    return Agreement(first, second, len(shared), None if isnan(tau) else tau)
