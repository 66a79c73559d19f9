"""Measures an embedded model on freshly generated probes:

    python -m vfl.testbeds.micro.evaluate vfl/testbeds/micro/weights [--pairs 200] [--seed 2026] \
        [--truth OTHER/planted.json]

For each function: accuracy with free attention, kept pairs, the share of kept answers that change when the planted
block's vision keys and values are swapped for the source's, and each single layer's share. An unplanted twin has no
planted.json of its own: give the planted model's.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vfl.errors import InputError
from vfl.loading.load import load
from vfl.locate.pairs import sweep_pair
from vfl.locate.recovery import read_truth
from vfl.probes.asking import Asker
from vfl.probes.make import make
from vfl.probes.style import MICRO_STYLE

REQUIRED = {"accuracy": 0.90, "block": 0.80, "outside": 0.05}


@dataclass(frozen=True)
class Measured:
    """One function's numbers; shares are of kept pairs (target and source both answered correctly)."""

    name: str
    block: tuple[int, ...]
    accuracy: float  # over targets and sources
    kept: int
    pairs: int
    block_changed: float
    block_followed: float
    single: tuple[float, ...]  # changed, one a layer

    @property
    def outside(self) -> float:
        """The largest change rate of a single layer outside the block."""
        return max(rate for layer, rate in enumerate(self.single) if layer not in self.block)

    @property
    def passed(self) -> bool:
        return (
            self.accuracy >= REQUIRED["accuracy"]
            and self.block_changed >= REQUIRED["block"]
            and self.outside <= REQUIRED["outside"]
        )

    def line(self) -> str:
        rates = " ".join(f"{100 * rate:3.0f}" for rate in self.single)
        return (
            f"{self.name:<12} {100 * self.accuracy:6.1f} {self.kept:5d}/{self.pairs:<4d} {_spelled(self.block):>5} "
            f"{100 * self.block_changed:7.1f} {100 * self.block_followed:8.1f} {100 * self.outside:8.1f}   {rates}"
        )


def _spelled(block: tuple[int, ...]) -> str:
    return str(block[0]) if len(block) == 1 else f"{block[0]}-{block[-1]}"


def evaluate(folder: Path, truth: dict[str, list[int]], pairs: int = 200, seed: int = 2026) -> list[Measured]:
    """Asks `pairs` generated pairs of each planted function."""
    vlm = load(str(folder))
    asker, singles = Asker(vlm), [(layer, layer) for layer in range(vlm.num_layers)]
    measured = []
    with tempfile.TemporaryDirectory() as suite:
        drawn = make(suite, tuple(truth), pairs=pairs, seed=seed, style=MICRO_STYLE)
        for name, layers in truth.items():
            block = tuple(layers)
            assert block == tuple(range(block[0], block[-1] + 1)), f"{name}'s block {block} has gaps"
            blocks = list(dict.fromkeys([*singles, (block[0], block[-1])]))
            records = [
                record
                for pair in drawn
                if pair.function == name
                for record in sweep_pair(asker, pair.model_copy(update={"control_image": None}), blocks)
            ]
            measured.append(_summary(name, block, records, pairs, vlm.num_layers))
    return measured


def _summary(name: str, block: tuple[int, ...], records: list[dict], pairs: int, num_layers: int) -> Measured:
    plain = [record for record in records if record["swap"] == "none"]
    kept = sum(record["kept"] for record in plain)

    def rate(key: str, first: int, last: int) -> float:
        rows = [r for r in records if r["kept"] and (r["first"], r["last"]) == (first, last)]
        return sum(r[key] for r in rows) / len(rows) if rows else float("nan")

    return Measured(
        name=name,
        block=block,
        accuracy=sum(r["target_correct"] + r["source_correct"] for r in plain) / (2 * len(plain)),
        kept=kept,
        pairs=pairs,
        block_changed=rate("changed", block[0], block[-1]),
        block_followed=rate("followed_source", block[0], block[-1]),
        single=tuple(rate("changed", layer, layer) for layer in range(num_layers)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vfl.testbeds.micro.evaluate", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--truth", type=Path, help="a planted.json; default: the folder's own")
    options = parser.parse_args()
    try:
        truth = read_truth(options.truth.parent if options.truth else options.folder)
        if truth is None:
            raise InputError(f"{options.folder} has no planted.json; name the planted model's with --truth")
        measured = evaluate(options.folder, truth, options.pairs, options.seed)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print("per cent     correct      kept block changed followed  outside   changed by each single layer, 0 first")
    for row in measured:
        print(row.line())
    passed = all(row.passed for row in measured)
    print(f"required: correct >= 90, changed >= 80, outside <= 5: {'passed' if passed else 'NOT passed'}")
    sys.exit(0 if passed or options.truth else 1)


if __name__ == "__main__":
    main()
