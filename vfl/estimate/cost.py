"""What an estimate is made of: passes with their operations, memory by its parts, and how these become seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vfl.engine.memory import USABLE
from vfl.estimate.cards import Card

# Shares of a card's peak that large transformers reach: training runs report 38 to 46 % (Llama 3, arXiv 2407.21783;
# PaLM, arXiv 2204.02311); the passes of few tokens here, in plain PyTorch, are taken to reach half of that or less.
UTILISATION = (0.15, 0.45)
# CUDA's context and the libraries' workspaces.
CONTEXT = 1.5 * 2**30
GIB = 2**30


@dataclass(frozen=True)
class Pass:
    """Passes of one kind.

    Attributes:
        what: in words.
        operations: of all of them together.
        launches: how often the weights are read for them.
        reads: bytes of weights that one reads.
    """

    what: str
    operations: float
    launches: float
    reads: float


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a piece of work costs.

    Attributes:
        unit: what the work is counted in: pair, row, step.
        count: units of the work on one card, the busiest.
        least, most: passes of one unit: what is done in any case, and at most.
        memory: bytes of one card by what holds them.
        disk: bytes by what they are.
        assumed: sentences for a person.
    """

    unit: str
    count: float
    least: Sequence[Pass]
    most: Sequence[Pass]
    memory: Mapping[str, float]
    disk: Mapping[str, float]
    assumed: Sequence[str]

    @property
    def bytes(self) -> float:
        """Memory of one card."""
        return sum(self.memory.values())

    def operations(self) -> tuple[float, float]:
        """Of one unit, at least and at most."""
        low, high = (sum(each.operations for each in passes) for passes in (self.least, self.most))
        return low, high

    def seconds(self, card: Card, utilisation: tuple[float, float] = UTILISATION) -> tuple[float, float]:
        """Of the whole work, low and high: the least passes well used, the most badly used."""
        low = self.count * sum(_seconds(each, card, utilisation[1]) for each in self.least)
        return low, self.count * sum(_seconds(each, card, utilisation[0]) for each in self.most)

    def fits(self, card: Card) -> bool:
        """Whether a card holds it, with a tenth left unplanned."""
        return self.bytes <= USABLE * card.memory * GIB


def _seconds(passes: Pass, card: Card, utilisation: float) -> float:
    """The longer of computing and reading weights, as in the roofline model (Williams et al. 2009)."""
    computing = passes.operations / (card.tflops * 1e12 * utilisation)
    # Memory is used better than multipliers are: half of its rate at the low end of the others' use.
    reading = passes.launches * passes.reads / (card.bandwidth * 1e12 * min(1.0, 2 * utilisation + 0.1))
    return max(computing, reading)
