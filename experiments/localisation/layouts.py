"""Six ways in which a function can lie in the decoder, and how training is told of them.

A function's *variants* are the ways in which a question may be asked while planting: the layers that read its own
image, those that read none, those that read another image, and which tokens of the answer count. Layers that a
variant doesn't name are closed: they read another image, or none, at random.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

Part = Literal["all", "first", "rest"]
FUNCTIONS = ("recognition", "counting", "grounding", "ocr")
NUM_LAYERS = 10


@dataclass(frozen=True)
class Variant:
    """One way to ask: layers by what they read; `part` of the answer has to come through it."""

    own: frozenset[int]
    none: frozenset[int] = frozenset()
    other: frozenset[int] = frozenset()
    part: Part = "all"


@dataclass(frozen=True)
class Layout:
    """The variants of each function, and the decoy layers of all.

    A decoy layer's output must tell what is in the image that the layer reads, at the places where answers begin, while
    the answer must not depend on it.
    """

    name: str
    variants: dict[str, tuple[Variant, ...]]
    decoys: tuple[int, ...] = ()
    steps: int = 300  # of training

    def planted(self, function: str) -> list[int]:
        """The layers that the design gives to a function."""
        return sorted(set().union(*(variant.own for variant in self.variants[function])))


def alone(layer: int) -> tuple[Variant, ...]:
    """One layer reads."""
    return (Variant(frozenset({layer})),)


def together(*layers: int) -> tuple[Variant, ...]:
    """All of some layers read; training decides which of them does what."""
    return (Variant(frozenset(layers)),)


def either(*layers: int) -> tuple[Variant, ...]:
    """Each of an odd number of layers serves alone, and what most of them read is the answer."""
    return tuple(_either(frozenset(layers)))


def _either(layers: frozenset[int]) -> Iterator[Variant]:
    for layer in layers:
        yield Variant(frozenset({layer}), none=layers - {layer})
    for minority in combinations(sorted(layers), len(layers) // 2):
        yield Variant(layers - set(minority), other=frozenset(minority))


def both(first: int, second: int) -> tuple[Variant, ...]:
    """The first half of the answer comes through one layer, the rest through another."""
    return (Variant(frozenset({first}), part="first"), Variant(frozenset({second}), part="rest"))


def _layout(name: str, *variants: tuple[Variant, ...], decoys: tuple[int, ...] = (), steps: int = 300) -> Layout:
    return Layout(name, dict(zip(FUNCTIONS, variants, strict=True)), decoys, steps)


# In the order of FUNCTIONS: recognition, counting, grounding, ocr.
LAYOUTS = {
    layout.name: layout
    for layout in (
        _layout("single", alone(4), alone(6), alone(5), alone(3)),
        _layout("two-layer", together(2, 3), together(5, 6), together(6, 7), together(4, 5)),
        _layout("redundant", either(2, 3, 4), either(1, 2, 3), either(4, 5, 6), either(7, 8, 9)),
        _layout("conjunctive", alone(2), alone(5), both(4, 7), both(3, 6)),
        _layout("distributed", *(either(*range(first, first + 5)) for first in (0, 0, 3, 5)), steps=2000),
        _layout("decoy", alone(5), alone(4), alone(6), alone(7), decoys=(2, 8)),
    )
}
