"""Integrated gradients of an answer's first token with respect to the vision embeddings.

    score_i = sum_d | mean_s grad_x logit(x0 + s (x - x0)) * (x - x0) |_{i,d},   s in (0, 1)

x: the image's embeddings; x0: every image token at the mean vision embedding. Without the | |, and with infinitely many
steps, the sum over i is logit(x) - logit(x0) (completeness). Source: Neo et al. (ICLR 2025).
"""

from dataclasses import dataclass

import torch

from vfl.engine.decoder_inputs import decoder_inputs
from vfl.metrics.edited_prompts import head_logits
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

    One step is held at a time: the activations of one forward pass with gradients. Two passes more give the logits at
    both ends.

    Args:
        vlm: the model; gradients of its parameters are not touched.
        encoded: the prompt.
        token: vocabulary entry, such as that of "Yes".
        baseline: (d,) mean vision embedding.
        steps: points between baseline and image, at the middle of their intervals.
    """
    arguments = decoder_inputs(vlm, encoded.inputs)
    embeds = arguments["inputs_embeds"].detach()
    here = (encoded.input_ids == vlm.parts.image_token_id).to(embeds.device)
    image = embeds[here]  # (V, d)
    start = baseline.to(image).expand_as(image)

    def logit(point: torch.Tensor) -> torch.Tensor:
        mixed = embeds.clone().masked_scatter(here[..., None].expand_as(embeds), point)
        output = vlm.parts.decoder(**{**arguments, "inputs_embeds": mixed}, use_cache=False).last_hidden_state
        return head_logits(vlm, output[0, -1])[token]

    total = torch.zeros_like(image)
    for step in range(steps):
        with torch.enable_grad():
            point = (start + (step + 0.5) / steps * (image - start)).requires_grad_()
            (gradient,) = torch.autograd.grad(logit(point), point)
        total += gradient
    signed = (total / steps * (image - start)).detach()
    with torch.no_grad():
        gap = float(logit(image)) - float(logit(start.clone()))
    residual = abs(float(signed.sum(dtype=torch.float64)) - gap) / max(abs(gap), 1e-12)
    return Attribution(signed.abs().sum(-1).cpu(), residual)
