"""What a screen leaves out of a function's sweep."""

from dataclasses import dataclass

from vfl.functionmap import Screen
from vfl.locate.curves import LayerSpan


@dataclass(frozen=True)
class LeftOut:
    """Blocks of layers that are not swept, and what the map says about that.

    Attributes:
        blocks: single layers and windows; none where everything is swept all the same.
        screen: with the same single layers.
    """

    blocks: tuple[LayerSpan, ...]
    screen: Screen
