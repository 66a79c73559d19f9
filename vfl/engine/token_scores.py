"""Scores of given tokens from the hidden states that predict them, reduced where the logits are.

Shapes: M tokens, d model width.
"""

import torch

from vfl.models.vlm import VLM

# Logits held at a time; their log-softmax needs about as much again.
_ELEMENTS = 2**25


def score_tokens(
    vlm: VLM, hidden: torch.Tensor, tokens: torch.Tensor, num_with_error: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probability of each token, whether it is the likeliest, and the error of some first predictions.

    The error is EL2N (Paul et al. 2021, arXiv 2107.07075): the L2 norm of the predicted distribution minus the one-hot
    token, from 0 to the square root of 2.

    Args:
        vlm: the model.
        hidden: (M, d) outputs of the last decoder layer.
        tokens: (M,) the tokens that they predict.
        num_with_error: how many of them get an error.

    Returns:
        (M,) log-probabilities in nats, (M,) booleans, (num_with_error,) errors.
    """
    step = max(1, _ELEMENTS // vlm.model.config.get_text_config(decoder=True).vocab_size)
    logprobs, top1, errors = [], [], []
    for start in range(0, len(tokens), step):
        logits = vlm.logits(hidden[start : start + step])
        logits = logits if logits.dtype == torch.float64 else logits.float()
        targets = tokens[start : start + step].to(logits.device)
        total = logits.logsumexp(-1)
        chosen = logits.gather(-1, targets[:, None])[:, 0] - total
        logprobs.append(chosen)
        top1.append(logits.argmax(-1) == targets)
        wanted = max(0, num_with_error - start)
        if wanted:
            squares = (2 * (logits[:wanted] - total[:wanted, None])).exp().sum(-1)
            # Where the token is certain, 1 - 2 + 1 may come out below zero.
            errors.append((squares - 2 * chosen[:wanted].exp() + 1).clamp(min=0).sqrt())
    return torch.cat(logprobs), torch.cat(top1), torch.cat(errors) if errors else hidden.new_zeros(0)
