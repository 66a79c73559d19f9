"""Exact answers on pictures, and in wordings, that training never shows: what the training log reports."""

import numpy as np
import torch

from vfl.testbeds.micro.questions import FUNCTIONS
from vfl.testbeds.smol.packing import Packer
from vfl.testbeds.smol.phrasings import held_out, questions
from vfl.testbeds.smol.tower import draw_scenes, look, pixels
from vfl.testbeds.smol.training import Training, exact

SEED = 10**9  # batches use small numbers
PICTURES, AT_ONCE = 48, 12
MIXED_AND_PLAIN = {"mixed": 4.0, "recognition": 1.0, "counting": 1.0, "grounding": 1.0, "ocr": 1.0}


class Watch:
    """`PICTURES` fixed pictures with all their questions, half of these in the held-out wording.

    Answers are teacher-forced: a greedy answer is right exactly when every token of the right answer is the most
    likely one.
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        rng = np.random.default_rng([SEED])
        self.scenes = draw_scenes(rng, PICTURES, MIXED_AND_PLAIN)
        self.asked = [
            [held_out(question) if rng.random() < 0.5 else question for question in questions(scene, rng, 1.0)]
            for scene in self.scenes
        ]

    @torch.no_grad()
    def rates(self) -> dict[str, float]:
        """Each function's share of right answers."""
        training = self.training
        shares: dict[str, list[tuple[float, int]]] = {name: [] for name in FUNCTIONS}
        longest = max(map(training.packer.size, self.asked))
        packer = Packer(training.processor, longest)
        for start in range(0, PICTURES, AT_ONCE):
            asked = self.asked[start : start + AT_ONCE]
            rows = packer.pack([[each] for each in asked]).to(training.device)
            features = look(training.model, pixels(self.scenes[start : start + AT_ONCE]).to(training.device))
            logits = training.answer_logits(training.decode(features, rows), rows)
            for name, share in exact(logits, rows).items():
                shares[name].append((share, sum(question.function == name for row in asked for question in row)))
        return {name: sum(s * n for s, n in seen) / max(1, sum(n for _, n in seen)) for name, seen in shares.items()}
