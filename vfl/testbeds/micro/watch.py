"""Accuracy and swap rates on fresh scene pairs, by the training tap: what the training log shows.

Answers are teacher-forced: a greedy answer is right exactly when every token of the right answer is the
most likely one.
"""

from collections.abc import Sequence

import numpy as np
import torch

from vfl.testbeds.micro.forward import Forward, tapped
from vfl.testbeds.micro.packing import Packer, Rows
from vfl.testbeds.micro.pairs import make_pair
from vfl.testbeds.micro.questions import FUNCTIONS
from vfl.testbeds.micro.scenes import paint
from vfl.testbeds.micro.tap import OTHER, OWN


class Watch:
    """`pairs` fixed pairs a function. The first half of the rows are targets, the second half their sources."""

    def __init__(self, forward: Forward, packer: Packer, pairs: int, seed: int) -> None:
        self.forward, self.pairs = forward, pairs
        self.num_layers = forward.text.config.num_hidden_layers
        device, single = forward.text.device, packer.single()
        self.images: dict[str, torch.Tensor] = {}
        self.rows: dict[str, Rows] = {}
        for index, name in enumerate(FUNCTIONS):
            rng = np.random.default_rng([seed, index])
            made = [make_pair(rng, name) for _ in range(pairs)]
            scenes = [pair.target for pair in made] + [pair.source for pair in made]
            asked = [pair.asked for pair in made] + [pair.source_asked for pair in made]
            self.images[name] = torch.from_numpy(np.stack([np.array(paint(scene)) for scene in scenes])).to(device)
            self.rows[name] = single.pack([[[question]] for question in asked]).to(device)
        self.other = torch.roll(torch.arange(2 * pairs, device=device), pairs)

    @torch.no_grad()
    def right(self, name: str, swaps: Sequence[Sequence[int]]) -> np.ndarray:
        """(swaps, 2 pairs) whether each row's own answer stays when the layers of a swap read the partner's image."""
        rows, right = self.rows[name], []
        with tapped(self.forward.model):
            features = self.forward.vision(self.images[name])
            for layers in swaps:
                readings = torch.full(
                    (self.num_layers, *rows.blocks.shape), OWN, dtype=torch.int8, device=self.other.device
                )
                readings[list(layers)] = OTHER
                hidden = self.forward.decode(features, rows, readings, self.other)
                best = self.forward.model.lm_head(hidden).argmax(-1)
                right.append(((best == rows.labels) | (rows.labels < 0)).all(dim=1).cpu().numpy())
        return np.stack(right)

    def rates(self, name: str, swaps: Sequence[Sequence[int]]) -> tuple[float, int, list[float]]:
        """Accuracy with free attention over targets and sources, kept pairs, and each swap's changed rate of those."""
        right = self.right(name, [[], *swaps])
        kept = right[0, : self.pairs] & right[0, self.pairs :]
        changed = [float((~row[: self.pairs][kept]).mean()) if kept.any() else float("nan") for row in right[1:]]
        return float(right[0].mean()), int(kept.sum()), changed
