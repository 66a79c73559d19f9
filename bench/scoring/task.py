"""A batch of conversations for the model of `bench.swapping.model`, and the ablations that are scored on it."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from bench.swapping.model import MARKERS, NUM_TEMPLATE_TOKENS, PATCH, Shape
from vfl.models.conversation import ConversationBatch
from vfl.models.vlm import VLM

# Where the paper found three functions, in 28 layers (arXiv 2509.24791, figure 2: counting 12, grounding 18, OCR 22);
# blocks of three layers around them, scaled to the model's depth.
PEAKS = {"counting": 12, "grounding": 18, "ocr": 22}
PUBLISHED_LAYERS = 28


@dataclass(frozen=True)
class Task:
    """One batch to score.

    Attributes:
        vlm: the model.
        batch: B conversations of one question and one answer of random words, each on a picture of its own. All are of
            one length, so that a plain forward needs no padding and can use its fastest attention.
        ablations: four of them: the image hidden at all layers, and at each of three functions' layers.
        slots: (V,) positions of the vision tokens, the same in all rows.
    """

    vlm: VLM
    batch: ConversationBatch
    ablations: dict[str, list[int]]
    slots: torch.Tensor


@dataclass(frozen=True)
class Scored:
    """Scores of N answer tokens: (5, N) log-probabilities and hits, plain and with each ablation; (N,) own EL2N."""

    logprobs: torch.Tensor
    top1: torch.Tensor
    error_l2: torch.Tensor


def task(vlm: VLM, shape: Shape, num_rows: int, num_answer_tokens: int) -> Task:
    """The batch, on the CPU as a data loader hands it over."""
    generator = np.random.default_rng(0)
    num_words = shape.text_tokens - NUM_TEMPLATE_TOKENS
    rows, pictures = [], []
    for seed in range(num_rows):
        words = generator.integers(len(MARKERS), shape.vocabulary, num_words)
        prompt = vlm.ask(" ".join(f"w{word}" for word in words), _picture(shape, seed))
        answer = torch.from_numpy(generator.integers(len(MARKERS), shape.vocabulary, (1, num_answer_tokens)))
        rows.append(torch.cat([prompt.input_ids.cpu(), answer], dim=1))
        pictures.append(prompt.inputs["pixel_values"].cpu())
        (span,) = prompt.spans
    ids = torch.cat(rows)
    answers = torch.zeros(ids.shape, dtype=torch.bool)
    answers[:, -num_answer_tokens:] = True
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.cat(pictures)}
    slots = torch.arange(span.start, span.end, device=vlm.device)
    return Task(vlm, ConversationBatch(inputs, answers), ablations(vlm.num_layers), slots)


def ablations(num_layers: int) -> dict[str, list[int]]:
    """The four ablations for a model of so many layers."""
    chosen = {"no image": list(range(num_layers))}
    for name, peak in PEAKS.items():
        middle = round(peak * num_layers / PUBLISHED_LAYERS)
        chosen[name] = [layer for layer in range(middle - 1, middle + 2) if 0 <= layer < num_layers]
    return chosen


def _picture(shape: Shape, seed: int) -> Image.Image:
    grid = math.isqrt(shape.vision_tokens)
    blocks = np.random.default_rng(seed).integers(0, 256, (grid, grid, 3), dtype=np.uint8)
    return Image.fromarray(blocks.repeat(PATCH, axis=0).repeat(PATCH, axis=1))
