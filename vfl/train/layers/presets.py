"""Layer sets that a paper states, by name."""

from dataclasses import dataclass

from vfl.errors import InputError


@dataclass(frozen=True)
class Preset:
    """A stated set of layers.

    Attributes:
        layers: decoder layers, from 0.
        family: the family's name in `vfl models`.
        num_layers: depth of the model that the set was stated for.
        source: where it comes from, and what is not certain about it.
    """

    layers: tuple[int, ...]
    family: str
    num_layers: int
    source: str


_PAPER = "reconstructed from arXiv 2509.24791 (VFL-LoRA on Qwen2.5-VL-7B, spatial data)"

# The paper states "10-17, 20-23", which are 12 layers; its adapter sizes (154 of 308 MiB) and the size of its reversed
# arm fit the 14 layers 10-23 exactly. Neither reading is confirmed.
PRESETS: dict[str, Preset] = {
    "qwen2.5-vl-7b/10-23": Preset(
        (*range(10, 24),), "Qwen2.5-VL", 28, f"{_PAPER}: 14 layers, which fit the stated adapter sizes"
    ),
    "qwen2.5-vl-7b/10-17,20-23": Preset(
        (*range(10, 18), *range(20, 24)), "Qwen2.5-VL", 28, f"{_PAPER}: 12 layers, as the text states them"
    ),
}


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        InputError: names the known ones.
    """
    if name not in PRESETS:
        raise InputError(f"There is no preset {name!r}; the known ones are {', '.join(PRESETS)}.")
    return PRESETS[name]
