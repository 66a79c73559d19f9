"""Which layers run vision tokens, and at which the text reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

from vfl.errors import InputError
from vfl.functionmap import FunctionMap
from vfl.io.layers import layer_list


@dataclass(frozen=True)
class Skip:
    """Vision tokens enter at layer `entry`, leave before layer `exit`, and are hidden from the text at some between.

    Attributes:
        num_layers: L.
        entry: the projector's outputs enter at this layer (late entry); below it the text runs alone.
        exit: from this layer on the text runs alone again.
        hidden: layers between where the text does not see them; they are still computed for the layers after.
    """

    num_layers: int
    entry: int
    exit: int
    hidden: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not 0 <= self.entry <= self.exit <= self.num_layers:
            raise InputError(
                f"entry {self.entry} and exit {self.exit}: the model has {self.num_layers} layers; expected "
                f"0 <= entry <= exit <= {self.num_layers}."
            )
        if outside := [layer for layer in self.hidden if not 0 <= layer < self.num_layers]:
            raise InputError(f"Layers {sorted(outside)} are to be hidden; the model has {self.num_layers}.")

    @property
    def visible(self) -> list[int]:
        """Layers at which the text reads vision tokens."""
        return [layer for layer in range(self.entry, self.exit) if layer not in self.hidden]

    @property
    def computed(self) -> range:
        """Layers that vision tokens run through: from the entry to the last layer that reads them."""
        return range(self.entry, max(self.visible, default=self.entry - 1) + 1)

    @property
    def nothing(self) -> bool:
        """Whether vision tokens run at every layer and are read there: the plain model."""
        return len(self.visible) == self.num_layers

    @property
    def words(self) -> str:
        """For a person."""
        return f"vision tokens run at layers {layer_list(self.computed)} and are read at {layer_list(self.visible)}"


def skip_by_map(fmap: FunctionMap, keep: Sequence[str]) -> Skip:
    """Hide vision at the layers of the functions that are not kept, but for those that a kept one has too.

    Raises:
        InputError: for functions that the map lacks, or a kept function without layers.
    """
    kept = set(fmap.layers_of(list(keep)))
    others = [name for name, entry in fmap.functions.items() if name not in keep and entry.layers]
    hidden = set(fmap.layers_of(others)) - kept if others else set()
    return Skip(fmap.model.num_layers, 0, fmap.model.num_layers, frozenset(hidden))
