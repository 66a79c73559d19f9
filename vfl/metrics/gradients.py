"""Integrated gradients of an answer's first token with respect to the vision embeddings.

    score_i = sum_d | mean_s grad_x logit(x0 + s (x - x0)) * (x - x0) |_{i,d},   s in (0, 1)

x: the image's embeddings; x0: every image token at the mean vision embedding. Without the | |, and with infinitely many
steps, the sum over i is logit(x) - logit(x0) (completeness). Source: Neo et al. (ICLR 2025).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from vfl.engine.decoder_inputs import prompt_inputs, take_rows
from vfl.engine.last_output import last_output
from vfl.engine.memory import prompt_limit
from vfl.metrics.edited_prompts import fitting, head_logits
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

STEPS = 50


@dataclass(frozen=True)
class Attribution:
    """Scores of image tokens, (V,), and how far the steps are from enough.

    `residual` is |sum of the signed attributions - (logit(x) - logit(x0))| as a share of |logit(x) - logit(x0)|.
    """

    scores: torch.Tensor
    residual: float


def integrated_gradients(
    vlm: VLM, encoded: Encoded, token: int, baseline: torch.Tensor, *, steps: int = STEPS
) -> Attribution:
    """Attribution of the logit of `token` at the last prompt position to each image token.

    Steps are rows of a batch, as many as fit into memory: the activations of a forward pass with gradients each. A
    batch of two gives the logits at both ends.

    Args:
        vlm: the model; gradients of its parameters are not touched.
        encoded: the prompt.
        token: vocabulary entry, such as that of "Yes".
        baseline: (d,) mean vision embedding.
        steps: points between baseline and image, at the middle of their intervals.
    """
    arguments = prompt_inputs(vlm, encoded)
    embeds = arguments["inputs_embeds"].detach()
    here = (encoded.input_ids == vlm.parts.image_token_id).to(embeds.device)
    image = embeds[here]  # (V, d)
    start = baseline.to(image).expand_as(image)
    places = here[0].nonzero().flatten()

    def logits(points: torch.Tensor) -> torch.Tensor:
        """(B,) of (B, V, d) image embeddings."""
        mixed = embeds.repeat(len(points), 1, 1).index_copy(1, places, points)
        rows = take_rows(arguments, [0] * len(points)) | {"inputs_embeds": mixed}
        return head_logits(vlm, last_output(vlm, rows))[:, token]

    def summed(part: Sequence[int]) -> list[torch.Tensor]:
        """The sum of some steps' gradients, (V, d)."""
        shares = (torch.tensor(part, dtype=image.dtype, device=image.device) + 0.5) / steps
        with torch.enable_grad(), fixed_weights(vlm.model):
            points = (start + shares[:, None, None] * (image - start)).requires_grad_()
            (gradient,) = torch.autograd.grad(logits(points).sum(), points)
        return [gradient.sum(0)]

    limit = prompt_limit(vlm, encoded.length, gradients=True)
    total = torch.stack(fitting(vlm, range(steps), limit, summed)).sum(0)
    signed = (total / steps * (image - start)).detach()
    with torch.no_grad():
        ends = logits(torch.stack([image, start]))
        gap = float(ends[0]) - float(ends[1])
    residual = abs(float(signed.sum(dtype=torch.float64)) - gap) / max(abs(gap), 1e-12)
    return Attribution(signed.abs().sum(-1).cpu(), residual)


@contextmanager
def fixed_weights(model: nn.Module) -> Iterator[None]:
    """No weight asks for a gradient, so that a pass keeps only what the gradients of its inputs need."""
    asking = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        for weight in asking:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in asking:
            weight.requires_grad_(True)
