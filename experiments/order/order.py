"""In which order do the functions lie? Depths with intervals, and Kendall's tau with the order that the paper reports.

    python -m experiments.order.order MAP_FOLDER [MAP_FOLDER ...] [--out FILE.json]

A folder is what `vfl locate` wrote. A function's depth is the mean layer, weighted by how many more answers a swap of
the layer changes than the control swap does, as a share of the model's depth: 0 its first layer, 1 its last. Intervals
are percentiles over 2,000 bootstrap samples of the kept pairs (seed 0). Published order (Shi et al. 2025, LLaVA and
Qwen): recognition, counting, grounding, OCR.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from vfl.errors import InputError
from vfl.functionmap import FunctionMap
from vfl.locate.curves import Outcomes, outcomes
from vfl.locate.records import read_records

PUBLISHED = ("recognition", "counting", "grounding", "ocr")
DRAWS = 2000
LEAST = 0.2  # a function whose best single layer changes fewer answers than this has no depth


@dataclass(frozen=True)
class Depth:
    """Where a function lies; layers are 0-based, `depth` and its interval shares of the model's depth."""

    kept: int
    peak: int
    highest: float  # change rate at the peak, above the control's
    depth: float
    low: float
    high: float


@dataclass(frozen=True)
class Order:
    """One model's order. `tau` is over the functions that have a depth; None where fewer than three do."""

    model: str
    num_layers: int
    depths: dict[str, Depth]
    order: tuple[str, ...]
    tau: float | None
    tau_low: float | None
    tau_high: float | None


def excess(data: Outcomes) -> np.ndarray:
    """(pairs, layers) answers changed by the swap of each layer alone, less those that the control swap changed."""
    single = slice(0, data.num_layers)
    return data.changed[:, single] - np.nan_to_num(data.control[:, single])


def centre(rates: np.ndarray) -> np.ndarray:
    """(...,) mean layer as a share of the depth, of (..., layers) rates; what is below zero counts as zero."""
    weights = np.clip(rates, 0, None)
    total = weights.sum(-1)
    layers = np.arange(rates.shape[-1]) / (rates.shape[-1] - 1)
    return np.divide((weights * layers).sum(-1), total, out=np.full(total.shape, np.nan), where=total > 0)


def tau_with_published(depths: dict[str, float]) -> float:
    """Kendall's tau-b between the depths and the published order, over the functions that are there."""
    names = [name for name in PUBLISHED if name in depths]
    return float(kendalltau(range(len(names)), [depths[name] for name in names]).statistic)


def order_of(folder: Path) -> Order:
    """The order of one map.

    Raises:
        InputError: the folder holds no map with its pairs.
    """
    fmap = FunctionMap.load(folder / "map.json")
    records = read_records(folder / "pairs.parquet")
    rng = np.random.default_rng(0)
    depths: dict[str, Depth] = {}
    drawn: dict[str, np.ndarray] = {}
    for name in PUBLISHED:
        if name not in fmap.functions or not fmap.functions[name].kept:
            continue
        pairs = excess(outcomes(records, name, fmap.model.num_layers))
        rates = pairs.mean(0)
        if rates.max() < LEAST:
            continue
        samples = rng.integers(len(pairs), size=(DRAWS, len(pairs)))
        drawn[name] = centre(pairs[samples].mean(1))
        low, high = np.nanpercentile(drawn[name], [2.5, 97.5])
        depths[name] = Depth(
            len(pairs), int(rates.argmax()), float(rates.max()), float(centre(rates)), float(low), float(high)
        )
    tau = low_tau = high_tau = None
    if len(depths) >= 3:
        tau = tau_with_published({name: depth.depth for name, depth in depths.items()})
        taus = [tau_with_published({name: drawn[name][k] for name in depths}) for k in range(DRAWS)]
        low_tau, high_tau = (float(value) for value in np.nanpercentile(taus, [2.5, 97.5]))
    order = tuple(sorted(depths, key=lambda name: depths[name].depth))
    return Order(fmap.model.id, fmap.model.num_layers, depths, order, tau, low_tau, high_tau)


def markdown(orders: list[Order]) -> str:
    """The table of all models."""
    lines = [
        "| model | layers | " + " | ".join(PUBLISHED) + " | order | tau with the published order |",
        "| --- " * (len(PUBLISHED) + 4) + "|",
    ]
    for order in orders:
        cells = []
        for name in PUBLISHED:
            depth = order.depths.get(name)
            cells.append(
                "-"
                if depth is None
                else f"{depth.depth:.2f} ({depth.low:.2f}–{depth.high:.2f}), peak {depth.peak} at {depth.highest:.0%}"
            )
        tau = "-" if order.tau is None else f"{order.tau:+.2f} ({order.tau_low:+.2f} to {order.tau_high:+.2f})"
        lines.append(
            f"| {order.model} | {order.num_layers} | {' | '.join(cells)} | {' < '.join(order.order)} | {tau} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="write all numbers as JSON")
    options = parser.parse_args()
    try:
        orders = [order_of(folder) for folder in options.folders]
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(markdown(orders))
    if options.out:
        options.out.write_text(json.dumps([asdict(order) for order in orders], indent=2) + "\n")


if __name__ == "__main__":
    main()
