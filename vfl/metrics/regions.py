"""Where in the picture each image token comes from, in pixels of the image as given.

No table by family: the model is shown a picture whose colours are coordinates (red = x, green = y, blue = inside), so
whatever the processor does to a picture of this size (resize, crop, pad, tile, thumbnail) is read off the pixels that
the vision tower would get. A token is then a cell of its tile, in reading order. Families that pack their tiles with
newline embeddings (LLaVA-NeXT, LLaVA-OneVision) pack the cells themselves: they go through in the projector's place.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from vfl.engine.vision_embeddings import vision_embeddings
from vfl.errors import InputError
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

INSIDE = 0.75  # of blue: padding is black, or grey where it is added after normalising
TOUCHING = 0.02  # of a region's side: less is the error of its edges


@torch.no_grad()
def token_regions(vlm: VLM, encoded: Encoded) -> torch.Tensor:
    """Region of every image token of a prompt with one image.

    Returns:
        (V, 4) boxes x0, y0, x1, y1 in pixels of the image as given, in the order of the image tokens; NaN for tokens
        without a place (newlines, padding). Tiles and thumbnails overlap: a pixel may belong to several tokens.

    Raises:
        InputError: for several images, or a layout of tokens that is not understood.
    """
    if len(encoded.image_sizes) != 1:
        raise InputError(f"Regions of tokens need a prompt with one image; this one has {len(encoded.image_sizes)}.")
    width, height = encoded.image_sizes[0]
    num_tokens = int((encoded.input_ids == vlm.parts.image_token_id).sum())
    scale = torch.tensor([width, height, width, height], dtype=torch.float64)
    if "image_grid_thw" in encoded.inputs:
        return _grid(encoded.inputs["image_grid_thw"], vlm.processor.image_processor.merge_size) * scale
    shown = vlm.ask("?", _coordinates(width, height))
    tiles = _unnormalised(vlm, shown, width, height)  # (tiles, 3, h, w)
    body: Any = vlm.parts.body
    packs = getattr(body, "image_newline", None) is not None
    vision: Any = vlm.model.config.vision_config
    side = vision.image_size // vision.patch_size if packs else math.isqrt(num_tokens // len(tiles))
    cells = torch.stack([_cells(tile, side) for tile in tiles])  # (tiles, side * side, 4)
    found = _packed(vlm, shown, cells) if packs else cells.flatten(0, 1)
    if len(found) != num_tokens:
        raise InputError(
            f"{vlm.family.name}: {num_tokens} image tokens for {len(tiles)} tiles of {side} x {side} cells; where they "
            "lie in the picture is not known. Please report the model."
        )
    return found.clamp(0, 1) * scale


def overlaps(regions: torch.Tensor, boxes: Sequence[Sequence[float]]) -> torch.Tensor:
    """(V,) bool: regions (V, 4) that share any area with one of the boxes; tokens without a place share none."""
    shared = torch.zeros(len(regions), dtype=torch.bool)
    x0, y0, x1, y1 = regions.unbind(-1)
    dx, dy = TOUCHING * (x1 - x0), TOUCHING * (y1 - y0)
    for left, top, right, bottom in boxes:
        shared |= (x0 + dx < right) & (x1 - dx > left) & (y0 + dy < bottom) & (y1 - dy > top)
    return shared


def _grid(grid_thw: torch.Tensor, merge: int) -> torch.Tensor:
    """(V, 4) relative cells of one picture cut into whole patches, merged merge x merge (the Qwen family)."""
    _, height, width = (int(side) for side in grid_thw[0])
    rows, columns = height // merge, width // merge
    y, x = torch.meshgrid(torch.arange(rows).double(), torch.arange(columns).double(), indexing="ij")
    return torch.stack([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows], dim=-1).flatten(0, 1)


def _coordinates(width: int, height: int) -> Image.Image:
    """A picture whose red is x and green is y, from 0 to 255 across, and whose blue is full."""
    x = ((torch.arange(width) + 0.5) / width * 255).expand(height, width)
    y = ((torch.arange(height) + 0.5) / height * 255)[:, None].expand(height, width)
    pixels = torch.stack([x, y, torch.full((height, width), 255.0)], dim=-1).round().to(torch.uint8)
    return Image.fromarray(pixels.numpy())


def _unnormalised(vlm: VLM, shown: Encoded, width: int, height: int) -> torch.Tensor:
    """(tiles, 3, h, w) what the vision tower gets of the coordinates, back in 0 .. 1."""
    pixels = shown.inputs["pixel_values"].double().cpu()
    black, white = (
        vlm.ask("?", Image.new("RGB", (width, height), colour)).inputs["pixel_values"].double().cpu()
        for colour in ("black", "white")
    )
    low, high = (plain.movedim(-3, 0).flatten(1) for plain in (black, white))
    low, high = low.amin(1)[:, None, None], high.amax(1)[:, None, None]
    return ((pixels - low) / (high - low)).flatten(0, -4)


def _cells(tile: torch.Tensor, side: int) -> torch.Tensor:
    """(side * side, 4) relative regions of a tile's cells: coordinates are linear in the tile's pixels, so fit lines.

    Single colours have 256 steps, too coarse for a large picture; the lines through a whole tile are not.
    """
    inside = tile[2] > INSIDE  # (h, w)
    if not inside.any():
        return torch.full((side * side, 4), torch.nan, dtype=torch.float64)
    height, width = inside.shape
    bounds = []
    for channel, steps, axis in ((0, width, 1), (1, height, 0)):
        at = torch.arange(steps).double() + 0.5
        seen = inside.any(1 - axis)
        counts = inside.sum(1 - axis)[seen]
        values = torch.where(inside, tile[channel], 0.0).sum(1 - axis)[seen] / counts
        edge = max(1, len(values) // 16) if len(values) > 8 else 0  # resampling bends the border
        kept = slice(edge, len(values) - edge)
        slope, offset = _line(at[seen][kept], values[kept])
        bounds.append((torch.arange(side + 1).double() * steps / side) * slope + offset)
    x, y = bounds
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    cells = torch.stack([x[columns], y[rows], x[columns + 1], y[rows + 1]], dim=-1).flatten(0, 1)
    outside = (cells[:, 2] <= 0) | (cells[:, 0] >= 1) | (cells[:, 3] <= 0) | (cells[:, 1] >= 1)
    cells[outside] = torch.nan
    return cells


def _line(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Least squares: slope and offset."""
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    return slope, y.mean() - slope * x.mean()


def _packed(vlm: VLM, shown: Encoded, cells: torch.Tensor) -> torch.Tensor:
    """(V, 4): the cells as the model packs its tiles, sent through in place of the projector's output.

    A fifth number marks what is a cell; newline embeddings are the model's own and lack it.
    """
    mark = 64.0
    body: Any = vlm.parts.body

    def replace(module: torch.nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        stand_in = torch.zeros_like(output)
        given = cells.nan_to_num(-1.0).to(output)
        stand_in[: len(given), :, :4] = given
        stand_in[: len(given), :, 4] = mark
        return stand_in

    handle = body.multi_modal_projector.register_forward_hook(replace)
    try:
        embedded = vision_embeddings(vlm, shown).double().cpu()
    finally:
        handle.remove()
    is_cell = (embedded[:, 4] == mark) & (embedded[:, :4] >= -0.5).all(1) & (embedded[:, 5:] == 0).all(1)
    return torch.where(is_cell[:, None], embedded[:, :4], torch.nan)
