"""The vision tower, alone and first: it names what each cell holds and where it is, near the language model's words.

So the language model reads a picture nearly as words from its first step, and the many steps that only teach an eye
cost a fiftieth of those that run through the decoder. Trained on with the decoder, the tower forgot letters.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize
from transformers import PreTrainedTokenizerBase, SmolVLMForConditionalGeneration

from vfl.probes import micro_limits as style
from vfl.testbeds.micro.scenes import (
    CONTENT_NAMES,
    NUM_CONTENTS,
    NUM_PLACES,
    Scene,
    cell_contents,
    mixed_scene,
    paint,
    plain_scene,
)

NAMING_SCALE = 20.0  # of the cosines in the softmax over names
EMPTY = 0.2  # weight of a cell that holds nothing: three quarters of them do
POSITION = 0.5  # of the words for column and row in a vision token, beside the word for what its cell holds
# Where a cell begins, in fifths of the picture, as boxes write it (0.40), and in words that differ from these.
COLUMNS = tuple(str(2 * index) for index in range(style.GRID))
ROWS = (" zero", " two", " four", " six", " eight")
LETTERED = {"mixed": 0.5, "recognition": 0.05, "counting": 0.1, "grounding": 0.05, "ocr": 0.3}  # pictures to learn from


def pixels(scenes: list[Scene]) -> torch.Tensor:
    """(B, 3, H, W) of painted scenes, normalised as the image processor does: from -1 to 1."""
    images = torch.from_numpy(np.stack([np.array(paint(scene)) for scene in scenes]))
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def draw_scenes(rng: np.random.Generator, count: int, weights: Mapping[str, float]) -> list[Scene]:
    """Scenes that show a function alone, as probes do, or are mixed, drawn by the weights of these."""
    kinds, shares = list(weights), np.array(list(weights.values()))
    drawn = rng.choice(kinds, size=count, p=shares / shares.sum())
    return [mixed_scene(rng) if kind == "mixed" else plain_scene(rng, str(kind)) for kind in drawn]


def look(model: SmolVLMForConditionalGeneration, images: torch.Tensor) -> torch.Tensor:
    """(B, cells, width of the decoder): what the tower and the connector make of (B, 3, H, W) pixels."""
    side = style.SIZE // model.config.vision_config.patch_size
    patches = torch.ones((len(images), side, side), dtype=torch.bool, device=images.device)
    seen = model.model.vision_model(pixel_values=images, patch_attention_mask=patches).last_hidden_state
    return model.model.connector(seen)


class CellReader(nn.Module):
    """What each cell holds, its place in the word, its column and row, read off the vision tokens.

    `names` are the decoder's embeddings of the words for the contents, `positions` (cells, width) those for column and
    row of each cell: a token should be their sum.
    """

    names: torch.Tensor
    positions: torch.Tensor

    def __init__(self, model: SmolVLMForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        embeddings = model.get_input_embeddings().weight.detach()

        def words(texts: Sequence[str]) -> torch.Tensor:
            return torch.stack([embeddings[tokenizer(text)["input_ids"]].mean(0) for text in texts])

        columns, rows = words(COLUMNS), words(ROWS)
        cells = torch.arange(style.GRID**2)
        self.register_buffer("names", words(CONTENT_NAMES[1:]), persistent=False)
        self.register_buffer(
            "positions", POSITION * (columns[cells % style.GRID] + rows[cells // style.GRID]), persistent=False
        )
        self.linear = nn.Linear(embeddings.shape[1], NUM_CONTENTS + NUM_PLACES + 2 * style.GRID)

    def loss(self, features: torch.Tensor, scenes: list[Scene]) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss, and the share of filled cells that are named right, of places, and the mean cosine."""
        contents, places = (torch.from_numpy(np.stack(part)) for part in zip(*map(cell_contents, scenes), strict=True))
        contents, places = contents.to(features.device), places.to(features.device)
        cells = torch.arange(features.shape[1], device=features.device).expand(len(features), -1)
        parts = self.linear(features).split([NUM_CONTENTS, NUM_PLACES, style.GRID, style.GRID], dim=-1)
        weights = torch.where(contents > 0, 1.0, EMPTY)
        losses = [
            (cross_entropy(part.flatten(0, 1), target.flatten(), reduction="none") * weights.flatten()).sum()
            / weights.sum()
            for part, target in zip(parts, (contents, places, cells % style.GRID, cells // style.GRID), strict=True)
        ]
        filled = contents > 0
        wanted = contents[filled] - 1
        target = self.positions.expand_as(features).clone()
        target[filled] += self.names[wanted]
        named = features - self.positions
        scores = normalize(named[filled], dim=-1) @ normalize(self.names, dim=-1).T
        away = 1.0 - cosine_similarity(features, target, dim=-1)
        size = (features.norm(dim=-1) / target.norm(dim=-1) - 1.0) ** 2
        naming = cross_entropy(NAMING_SCALE * scores, wanted)
        near = ((away + 0.1 * size) * weights).sum() / weights.sum()
        with torch.no_grad():
            shares = {
                "contents": float((parts[0][filled].argmax(-1) == contents[filled]).float().mean()),
                "places": float((parts[1][filled].argmax(-1) == places[filled]).float().mean()),
                "column": float((parts[2].argmax(-1) == cells % style.GRID).float().mean()),
                "named": float((scores.argmax(-1) == wanted).float().mean()),
                "cosine": float(1.0 - away[filled].mean()),
            }
        return torch.stack(losses).sum() + naming + near, shares
