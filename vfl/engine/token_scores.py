"""Scores of given tokens from the hidden states that predict them, reduced where the logits are.

Shapes: M tokens, d model width, A ablations.
"""

import math

import torch

from vfl.models.vlm import VLM

# Logits held at a time; what is computed of them needs a few times as much again.
ELEMENTS = 2**23

TokenScores = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""(A + 1, M) log-probabilities in nats, hits and divergences from the own prediction (row 0), and (M,) own errors."""


def score_tokens(vlm: VLM, hidden: torch.Tensor, tokens: torch.Tensor, changed: torch.Tensor) -> TokenScores:
    """Log-probability of each token, whether it is the likeliest, and what each ablation changes of the prediction.

    The divergence is Jensen-Shannon's, in nats (0 to ln 2): it asks for no right answer, and is zero where the model
    would say the same. The error is EL2N (Paul et al. 2021, arXiv 2107.07075): the L2 norm of the predicted
    distribution minus the one-hot token, from 0 to the square root of 2.

    Args:
        vlm: the model.
        hidden: (M, d) outputs of the last decoder layer.
        tokens: (M,) the tokens that they predict.
        changed: (A, M, d) the same outputs with each ablation; A may be 0.
    """
    step = max(1, ELEMENTS // vlm.model.config.get_text_config(decoder=True).vocab_size)
    parts = []
    for start in range(0, len(tokens), step):
        part = slice(start, start + step)
        parts.append(_score(vlm, hidden[part], tokens[part], changed[:, part]))
    if not parts:
        empty = hidden.new_zeros(len(changed) + 1, 0)
        return empty, empty.bool(), empty, empty[0]
    logprobs, top1, divergence, errors = (torch.cat(part, dim=-1) for part in zip(*parts, strict=True))
    return logprobs, top1, divergence, errors


def _score(vlm: VLM, hidden: torch.Tensor, tokens: torch.Tensor, changed: torch.Tensor) -> TokenScores:
    own = _log_softmax(vlm.logits(hidden))
    answered = tokens.to(own.device)
    chosen = own.gather(-1, answered[:, None])[:, 0]
    # Where the token is certain, 1 - 2 + 1 may come out below zero.
    errors = ((2 * own).exp().sum(-1) - 2 * chosen.exp() + 1).clamp(min=0).sqrt()
    logprobs, top1, divergence = [chosen], [own.argmax(-1) == answered], [torch.zeros_like(chosen)]
    for states in changed:
        other = _log_softmax(vlm.logits(states)).to(own.device)
        logprobs.append(other.gather(-1, answered[:, None])[:, 0])
        top1.append(other.argmax(-1) == answered)
        middle = torch.logaddexp(own, other) - math.log(2)
        parted = (own.exp() * (own - middle) + other.exp() * (other - middle)).sum(-1) / 2
        divergence.append(parted.clamp(min=0))  # rounding may leave less than nothing
    return torch.stack(logprobs), torch.stack(top1), torch.stack(divergence), errors


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
