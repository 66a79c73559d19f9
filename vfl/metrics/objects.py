"""Sets of image tokens: those on an object, the rings around them, the last row; and the object painted over.

Legend: V image tokens.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from vfl.metrics.regions import overlaps, token_regions
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM
from vfl.probes.pair import Pair, Which

NOISE_SEED = 0
TOUCHING = 0.1  # of a token's side: neighbours' edges meet within it
SAME_SCALE = 1.5  # sides of neighbours differ by less; a thumbnail's tokens stand for several of a tile's


class Places:
    """Regions of image tokens, (V, 4) in pixels; all images of one size share them."""

    def __init__(self, vlm: VLM) -> None:
        self.vlm = vlm
        self._known: dict[tuple[tuple[tuple[int, int], ...], int], torch.Tensor] = {}

    def of(self, encoded: Encoded) -> torch.Tensor:
        """Regions of a prompt's image tokens, see `token_regions`."""
        key = (encoded.image_sizes, int((encoded.input_ids == self.vlm.parts.image_token_id).sum()))
        if key not in self._known:
            self._known[key] = token_regions(self.vlm, encoded)
        return self._known[key]


def object_tokens(regions: torch.Tensor, boxes: Sequence[Sequence[float]], rings: int = 0) -> torch.Tensor:
    """(V,) bool: tokens that share any area with a box, and `rings` rings of their neighbours (+1, +2).

    A token's neighbours are the eight around it, across the seams of tiles too. Tokens of another scale (a thumbnail's)
    are not, nor those at a border that are mostly padding.
    """
    chosen = overlaps(regions, boxes)
    for _ in range(rings if chosen.any() else 0):
        chosen = chosen | _neighbours(regions, chosen)
    return chosen


def last_row(regions: torch.Tensor) -> torch.Tensor:
    """(V,) bool: the last row of cells in reading order (of the last tile or thumbnail), with what follows it."""
    placed = ~regions.isnan().any(1)
    in_row = torch.zeros(len(regions), dtype=torch.bool)
    top = float(regions[placed][-1, 1])
    height = float(regions[placed][-1, 3]) - top
    for at in reversed(range(len(regions))):
        if placed[at] and abs(float(regions[at, 1]) - top) > height / 2:
            break
        in_row[at] = True
    return in_row


def noised(pair: Pair, which: Which) -> Image.Image:
    """One image of a pair with its boxes full of uniform noise."""
    image = pair.open(which)
    pixels = np.random.default_rng(NOISE_SEED).integers(0, 256, (image.height, image.width, 3), dtype=np.uint8)
    mask = Image.new("L", image.size)
    drawing = ImageDraw.Draw(mask)
    for x0, y0, x1, y1 in pair.boxes[which]:
        drawing.rectangle((x0, y0, x1, y1), fill=255)
    return Image.composite(Image.fromarray(pixels), image, mask)


def at_positions(vlm: VLM, encoded: Encoded, tokens: torch.Tensor) -> torch.Tensor:
    """(V,) bool over image tokens -> (1, T) bool over the prompt's positions."""
    positions = torch.zeros_like(encoded.input_ids, dtype=torch.bool)
    positions[encoded.input_ids == vlm.parts.image_token_id] = tokens.to(positions.device)
    return positions


def _neighbours(regions: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """(V,) bool: tokens whose region meets one of the chosen, at an edge or a corner."""
    neighbours = torch.zeros_like(chosen)
    sides = regions[:, 2:] - regions[:, :2]  # (V, 2)
    for at in chosen.nonzero().flatten().tolist():
        slack = TOUCHING * sides[at]
        meets = (regions[:, :2] <= regions[at, 2:] + slack) & (regions[:, 2:] >= regions[at, :2] - slack)
        alike = (sides < SAME_SCALE * sides[at]) & (sides[at] < SAME_SCALE * sides)
        neighbours |= (meets & alike).all(1)
    return neighbours
