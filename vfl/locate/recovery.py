"""Recovered layers against planted ones, for a model whose serving layers are known."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vfl.functionmap import FunctionMap


@dataclass(frozen=True)
class Score:
    """Layers of one function, or of all together (a layer counts once for each function)."""

    hits: int
    found: int
    planted: int

    @property
    def precision(self) -> float:
        """Share of the layers found that were planted; 0 where nothing was found."""
        return self.hits / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """Share of the planted layers that were found."""
        return self.hits / self.planted if self.planted else 0.0


def score(fmap: FunctionMap, planted: Mapping[str, Sequence[int]]) -> dict[str, Score]:
    """One score for each function that is both in the map and planted, in the map's order."""
    pairs = {name: (set(fmap.functions[name].layers), set(planted[name])) for name in fmap.functions if name in planted}
    return {name: Score(len(found & truth), len(found), len(truth)) for name, (found, truth) in pairs.items()}


def total(scores: Mapping[str, Score]) -> Score:
    """All functions together."""
    return Score(*(sum(getattr(s, name) for s in scores.values()) for name in ("hits", "found", "planted")))


def read_truth(folder: Path) -> dict[str, list[int]] | None:
    """The layers planted in the model of a folder (planted.json), or None where nothing was planted."""
    path = folder / "planted.json"
    if not path.is_file():
        return None
    layers: dict[str, list[int]] = json.loads(path.read_text(encoding="utf-8"))["layers"]
    return layers
