"""The logit lens: which vocabulary entries a hidden state would answer with, p_i(l) = softmax(W_U norm(h[l]_i)).

States are those of vfl/engine/states.py, the last one before the final norm: one that is already normalised would be
normalised twice, which is wrong for every trained norm. Logits are made a chunk of tokens at a time and only the top
entries stay: 2,500 vision tokens by 152,000 entries would be 1.5 GB a layer in float32.
"""

import torch

from vfl.engine.states import between_layers, forward, is_image_token
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

CHUNK_NUMBERS = 2**25  # logits at once: 128 MiB in float32


def lens_of(
    vlm: VLM, encoded: Encoded, k: int = 5, here: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(L+1, V, k) probabilities and token ids: the logit lens' first choices, on the CPU.

    Args:
        vlm: the model.
        encoded: the prompt.
        k: how many choices.
        here: (T,) bool, V positions; by default the image tokens.
    """
    here = is_image_token(vlm, encoded) if here is None else here
    chosen = tuple(here.nonzero().flatten().tolist())
    return vlm.once([(encoded, ("lens", k, chosen))], lambda places: [_lens_of(vlm, encoded, k, here)])[0]


def _lens_of(vlm: VLM, encoded: Encoded, k: int, here: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    tops: list[tuple[torch.Tensor, torch.Tensor]] = []

    def visit(layer_idx: int, before: torch.Tensor, after: torch.Tensor) -> None:
        for state in (before, after) if layer_idx == 0 else (after,):
            probabilities, ids = top_tokens(vlm, state[0, here.to(state.device)], k)
            tops.append((probabilities.cpu(), ids.cpu()))

    with between_layers(vlm.layers, visit):
        forward(vlm, encoded)
    return torch.stack([probabilities for probabilities, _ in tops]), torch.stack([ids for _, ids in tops])


@torch.no_grad()
def top_tokens(vlm: VLM, states: torch.Tensor, k: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """The k likeliest vocabulary entries of each state.

    Args:
        vlm: the model.
        states: (n, d) residual states, not normalised.
        k: how many.

    Returns:
        (n, k) probabilities, descending, at least in float32, and (n, k) token ids; on the device of the logits.
    """
    vocabulary = vlm.model.config.get_text_config(decoder=True).vocab_size
    probabilities, ids = [], []
    for chunk in states.split(max(1, CHUNK_NUMBERS // vocabulary)):
        logits = vlm.logits(chunk)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        top = logits.topk(k, dim=-1)
        probabilities.append((top.values - torch.logsumexp(logits, dim=-1, keepdim=True)).exp())
        ids.append(top.indices)
    return torch.cat(probabilities), torch.cat(ids)
