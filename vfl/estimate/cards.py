"""Graphics cards by the figures of their makers' data sheets; none of them was measured here.

Rates are dense bfloat16 (without structured sparsity, with which data sheets often state twice as much).
"""

from dataclasses import dataclass
from typing import Literal

CardName = Literal["l4", "rtx4090", "a10", "a6000", "l40s", "a100-40gb", "a100", "h100", "h200", "b200"]


@dataclass(frozen=True)
class Card:
    """A device.

    Attributes:
        title: as its maker calls it.
        memory: in GiB.
        tflops: peak of bfloat16 matrix products, in 10^12 operations a second.
        bandwidth: of its memory, in 10^12 bytes a second.
        source: where the figures stand.
    """

    title: str
    memory: float
    tflops: float
    bandwidth: float
    source: str


CARDS: dict[CardName, Card] = {
    "l4": Card("L4", 24, 121, 0.300, "NVIDIA L4 data sheet (242 with sparsity)"),
    "rtx4090": Card("GeForce RTX 4090", 24, 165, 1.008, "NVIDIA Ada GPU architecture white paper, float32 sums"),
    "a10": Card("A10", 24, 125, 0.600, "NVIDIA A10 data sheet"),
    "a6000": Card("RTX A6000", 48, 155, 0.768, "NVIDIA RTX A6000 data sheet (310 with sparsity)"),
    "l40s": Card("L40S", 48, 362, 0.864, "NVIDIA L40S data sheet"),
    "a100-40gb": Card("A100 40 GB", 40, 312, 1.555, "NVIDIA A100 data sheet"),
    "a100": Card("A100 80 GB SXM", 80, 312, 2.039, "NVIDIA A100 data sheet"),
    "h100": Card("H100 SXM", 80, 989, 3.35, "NVIDIA H100 data sheet (1,979 with sparsity)"),
    "h200": Card("H200 SXM", 141, 989, 4.8, "NVIDIA H200 data sheet (1,979 with sparsity)"),
    "b200": Card("B200", 180, 2250, 8.0, "NVIDIA DGX B200 data sheet (4,500 with sparsity)"),
}
