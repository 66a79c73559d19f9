"""How much of the embedded model's planted truth a map recovers."""

import json
from dataclasses import dataclass
from pathlib import Path

from vfl.functionmap import FunctionMap


@dataclass(frozen=True)
class Recovery:
    """Recovered against planted layers of one function, or of all (as function-layer pairs)."""

    name: str
    planted: frozenset[tuple[str, int]]
    recovered: frozenset[tuple[str, int]]

    @property
    def precision(self) -> float:
        """Share of the recovered layers that were planted; 1 where none was recovered."""
        return len(self.planted & self.recovered) / len(self.recovered) if self.recovered else 1.0

    @property
    def recall(self) -> float:
        """Share of the planted layers that were recovered."""
        return len(self.planted & self.recovered) / len(self.planted)


def recoveries(fmap: FunctionMap, truth: dict[str, list[int]]) -> list[Recovery]:
    """One recovery a function that the map and the truth share, and one over all of them."""
    shared = [name for name in truth if name in fmap.functions]
    rows = [
        Recovery(
            name,
            frozenset((name, layer) for layer in truth[name]),
            frozenset((name, layer) for layer in fmap.functions[name].layers),
        )
        for name in shared
    ]
    planted = frozenset().union(*(row.planted for row in rows))
    recovered = frozenset().union(*(row.recovered for row in rows))
    return [*rows, Recovery("all", planted, recovered)]


def read_truth(folder: Path) -> dict[str, list[int]] | None:
    """The planted layers of a model folder, or None where nothing was planted."""
    path = folder / "planted.json"
    if not path.is_file():
        return None
    layers: dict[str, list[int]] = json.loads(path.read_text(encoding="utf-8"))["layers"]
    return layers
