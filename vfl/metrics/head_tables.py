"""Two measurements side by side: score distributions of two data sets (EMD), head scores of two models (Pearson).

Works on two results of `head_score`, `head_weight` or `concentration`, whose "heads" are L x H tables, such as those of
two metrics.json files. Source: "Unveiling Visual Perception in Language Models" (Bi et al., CVPR 2025).

Legend: L layers, H heads.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import pearsonr, wasserstein_distance

from vfl.errors import InputError

Floats = NDArray[np.float64]
TABLES = ("head_score", "head_weight", "concentration")


def compare_files(first: Path, second: Path) -> dict[str, dict[str, Any]]:
    """What two metrics.json files (or the folders that hold them) say of the same head metrics.

    Returns:
        Metric -> {"emd", "pearson", "low", "high", "n", "resampled"}; see `emd` and `pearson`.

    Raises:
        InputError: for a file that can't be read, or without a head metric in common.
    """
    ours, theirs = (results_in(path) for path in (first, second))
    shared = [name for name in TABLES if name in ours and name in theirs]
    if not shared:
        raise InputError(f"{first} and {second} have none of {', '.join(TABLES)} in common; measure one on both.")
    return {
        name: {"emd": emd(ours[name]["heads"], theirs[name]["heads"])}
        | pearson(ours[name]["heads"], theirs[name]["heads"])
        for name in shared
    }


def emd(first: ArrayLike, second: ArrayLike) -> float:
    """Earth mover's distance between the distributions of two head tables' values, in the values' own unit."""
    return float(wasserstein_distance(_table(first).ravel(), _table(second).ravel()))


def pearson(first: ArrayLike, second: ArrayLike) -> dict[str, Any]:
    """Correlation of two L x H head tables.

    Tables of equal shape are compared head by head. Others have no heads in common: each layer's heads are sorted,
    highest first, and both tables are interpolated linearly over relative depth and relative rank to the smaller number
    of layers and of heads.

    Returns:
        "pearson" with its 95 % interval "low", "high" (Fisher's z, which takes cells for independent), "n" cells, and
        "resampled": the common shape, or None. The numbers are None where a table is constant.
    """
    one, two = _table(first), _table(second)
    common = None
    if one.shape != two.shape:
        common = (min(one.shape[0], two.shape[0]), min(one.shape[1], two.shape[1]))
        one, two = (resampled(-np.sort(-table, axis=1), common) for table in (one, two))
    found: dict[str, Any] = {"pearson": None, "low": None, "high": None, "n": one.size, "resampled": common}
    if one.size > 3 and np.ptp(one) > 0 and np.ptp(two) > 0:
        correlation = pearsonr(one.ravel(), two.ravel())
        low, high = correlation.confidence_interval(0.95)
        found |= {"pearson": float(correlation.statistic), "low": float(low), "high": float(high)}
    return found


def resampled(table: Floats, shape: tuple[int, int]) -> Floats:
    """An L x H table at `shape`, by linear interpolation over relative depth, then relative rank."""
    for length in shape:  # the first axis, then the other
        at, to = np.linspace(0, 1, len(table)), np.linspace(0, 1, length)
        table = np.array([np.interp(to, at, column) for column in table.T])
    return table


def results_in(path: Path) -> dict[str, Any]:
    """Metric -> result of a metrics.json, given as the file or its folder.

    Raises:
        InputError: when it can't be read as one.
    """
    file = path / "metrics.json" if path.is_dir() else path
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file} can't be read as metrics.json: {error}. Give what `vfl measure` wrote.") from error
    metrics = data.get("metrics") if isinstance(data, dict) else None
    if not isinstance(metrics, dict):
        raise InputError(f"{file} has no 'metrics'. Give the metrics.json that `vfl measure` wrote.")
    return metrics


def _table(values: ArrayLike) -> Floats:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise InputError(f"Expected a table of numbers by layer and head, got shape {table.shape}.")
    return table
