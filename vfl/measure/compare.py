"""Measurements side by side: their scalars, and the head scores of two data sets (EMD) or two models (Pearson).

    print(as_markdown(compare_measurements([Path("runs/a"), Path("runs/b")])))

EMD is the earth mover's distance between the distributions of two L x H head tables; Pearson is their correlation, head
by head. Source of both: "Unveiling Visual Perception in Language Models" (Bi et al., CVPR 2025).

Legend: L layers, H heads.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import pearsonr, wasserstein_distance

from vfl.errors import InputError
from vfl.functionmap import other_pixels
from vfl.measure.guide import guide_of, ordered
from vfl.measure.metrics_file import read_metrics
from vfl.metrics.measure import known_metrics
from vfl.report.markdown import markdown_table
from vfl.report.words import distinct_labels, shown

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
HEADS = "heads"  # where a result keeps its L x H table


@dataclass(frozen=True)
class ScalarRow:
    """One scalar in every measurement: (value, low, high), None where a measurement lacks it."""

    metric: str
    name: str
    values: tuple[tuple[float, float | None, float | None] | None, ...]


@dataclass(frozen=True)
class HeadRow:
    """Two measurements' head tables of one metric.

    `pearson` has a 95 % interval (Fisher's z, which takes cells for independent) and is None where a table is constant.
    `layers` is the number of layers that tables of different shapes are compared at, see `pearson_of`; else None.
    """

    metric: str
    first: str
    second: str
    emd: float
    pearson: float | None
    low: float | None
    high: float | None
    n: int
    layers: int | None


@dataclass(frozen=True)
class MeasurementComparison:
    """Measurements in the order given, with what at least two of them have in common."""

    labels: tuple[str, ...]
    scalars: tuple[ScalarRow, ...]
    heads: tuple[HeadRow, ...]


def compare_measurements(paths: Sequence[Path]) -> MeasurementComparison:
    """Load measurements and set them side by side.

    Args:
        paths: two or more metrics.json files, or the folders that hold them.

    Raises:
        InputError: for fewer than two, a file that can't be read, or measurements without a metric in common.
    """
    if len(paths) < 2:
        raise InputError(
            f"{len(paths)} measurement given; comparing takes at least two (metrics.json or the folder that holds it)."
        )
    measurements = [read_metrics(path) for path in paths]
    labels = distinct_labels([metrics.model.id for metrics in measurements], paths)
    if warning := other_pixels(labels, [metrics.model for metrics in measurements]):
        logger.warning("%s", warning)
    results = [metrics.metrics for metrics in measurements]
    names = dict.fromkeys(name for result in results for name in result)
    common = [name for name in ordered(list(names)) if sum(name in result for result in results) > 1]
    if not common:
        raise InputError(
            f"{', '.join(map(str, paths))} have no metric in common. Measure the same one on each (vfl measure "
            "--metrics NAME)."
        )
    return MeasurementComparison(
        labels,
        tuple(row for name in common for row in _scalar_rows(name, [result.get(name) for result in results])),
        tuple(row for name in common for row in _head_rows(name, labels, [result.get(name) for result in results])),
    )


def as_markdown(comparison: MeasurementComparison) -> str:
    """The comparison as text: Markdown tables of scalars, then of head tables where there are some."""
    heading = ["metric", "what", *comparison.labels]
    rows = [[row.metric, row.name, *_values(row)] for row in comparison.scalars]
    parts = [markdown_table(heading, rows)] if rows else []
    if comparison.heads:
        heading = ["heads of", "measurements", "EMD", "Pearson", "95 % CI", "cells"]
        parts.append(markdown_table(heading, [_head_cells(row) for row in comparison.heads]))
    return "\n".join(parts)


def emd(first: ArrayLike, second: ArrayLike) -> float:
    """Earth mover's distance between the distributions of two head tables' values, in the values' own unit."""
    return float(wasserstein_distance(_checked(first).ravel(), _checked(second).ravel()))


def pearson_of(first: ArrayLike, second: ArrayLike) -> dict[str, Any]:
    """Correlation of two L x H head tables.

    Tables of equal shape are compared head by head. Others have no heads in common: the means over each layer's heads
    are, interpolated linearly over relative depth to the smaller number of layers. (Heads that are sorted by value
    would correlate whatever they are: sorted noise does, at 0.9.)

    Returns:
        "pearson", "low", "high", "n" and "layers" of `HeadRow`.
    """
    ours, theirs = _checked(first), _checked(second)
    common = None
    if ours.shape != theirs.shape:
        common = min(len(ours), len(theirs))
        ours, theirs = (at_depths(table.mean(1), common) for table in (ours, theirs))
    row: dict[str, Any] = {"pearson": None, "low": None, "high": None, "n": ours.size, "layers": common}
    if ours.size > 3 and np.ptp(ours) > 0 and np.ptp(theirs) > 0:
        correlation = pearsonr(ours.ravel(), theirs.ravel())
        low, high = correlation.confidence_interval(0.95)
        row |= {"pearson": float(correlation.statistic), "low": float(low), "high": float(high)}
    return row


def at_depths(profile: Floats, count: int) -> Floats:
    """(L,) values by layer at `count` equal steps of relative depth, by linear interpolation."""
    return np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(profile)), profile)


def _scalar_rows(metric: str, results: list[dict[str, Any] | None]) -> list[ScalarRow]:
    scalars = [{} if result is None else result["scalars"] for result in results]
    rows = []
    for name in dict.fromkeys(name for each in scalars for name in each):
        values = [
            (scalar["value"], scalar["low"], scalar["high"]) if scalar and scalar["value"] is not None else None
            for scalar in (each.get(name) for each in scalars)
        ]
        if sum(value is not None for value in values) > 1:
            rows.append(ScalarRow(metric, name, tuple(values)))
    return rows


def _head_rows(metric: str, labels: Sequence[str], results: list[dict[str, Any] | None]) -> list[HeadRow]:
    named = zip(labels, results, strict=True)
    tables = [(label, result[HEADS]) for label, result in named if result and HEADS in result]
    return [
        HeadRow(metric, first, second, emd(ours, theirs), **pearson_of(ours, theirs))
        for (first, ours), (second, theirs) in combinations(tables, 2)
    ]


def _values(row: ScalarRow) -> list[str]:
    unit = guide_of(row.metric).unit_of(row.name) if row.metric in known_metrics() else ""
    cells = []
    for value in row.values:
        if value is None:
            cells.append("–")
            continue
        number, low, high = value
        ends = "" if low is None else f" ({shown(low, unit)} to {shown(high, unit)})"
        cells.append(shown(number, unit) + ends)
    return cells


def _head_cells(row: HeadRow) -> list[str]:
    correlation = "–" if row.pearson is None else f"{row.pearson:.3f}"
    ends = "" if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}"
    cells = f"{row.n}" if row.layers is None else f"{row.layers} (means of layers)"
    return [row.metric, f"{row.first} / {row.second}", f"{row.emd:.3g}", correlation, ends, cells]


def _checked(values: ArrayLike) -> Floats:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise InputError(f"Expected a table of numbers by layer and head, got shape {table.shape}.")
    return table
