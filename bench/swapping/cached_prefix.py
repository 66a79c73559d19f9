"""The same sweep as a careful engineer writes it: both images cached once, then all rows as a batch of plain forwards.

Keys and values of the target's image are copied for every row, the source's take their place at the row's layer, and
the question and the answer run over all rows at once. Nothing of this package is needed for it.
"""

from typing import Any

import torch
from transformers import DynamicCache

from bench.swapping.hooks import embed
from bench.swapping.model import Answers, Task


@torch.no_grad()
def sweep_by_cached_prefix(task: Task) -> Answers:
    """Two prefills up to the image's end, then L + 2 rows: the target, the target swapped at each layer, the source."""
    model, num_layers = task.vlm.model, task.vlm.num_layers
    end = int(task.slots[-1]) + 1
    target, source = (embed(model, prompt) for prompt in (task.target, task.source))
    own, other = (prefilled(model, embedded[:, :end]) for embedded in (target, source))
    cache = DynamicCache()
    for layer_idx in range(num_layers):
        pairs = []
        for which in ("keys", "values"):
            mine, theirs = (getattr(of.layers[layer_idx], which) for of in (own, other))
            rows = mine.repeat(num_layers + 2, 1, 1, 1)
            rows[[1 + layer_idx, num_layers + 1]] = theirs
            pairs.append(rows)
        cache.update(*pairs, layer_idx)
    return answered(model, target[:, end:].expand(num_layers + 2, -1, -1), cache, task.num_tokens)


def answered(model: Any, question: torch.Tensor, cache: DynamicCache, num_tokens: int) -> Answers:
    """Rows of a cache that read the (R, n, d) question and answer."""
    logits = model(inputs_embeds=question, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
    first, answers = logits, [logits.argmax(-1)]
    while len(answers) < num_tokens:
        output = model(input_ids=answers[-1][:, None], past_key_values=cache, use_cache=True, logits_to_keep=1)
        answers.append(output.logits[:, -1].argmax(-1))
    return Answers(first.float().cpu(), torch.stack(answers, dim=1).tolist())


def prefilled(model: Any, embedded: torch.Tensor) -> DynamicCache:
    """Keys and values of a prompt's first tokens, from their (1, T, d) embeddings."""
    cache = DynamicCache()
    model(inputs_embeds=embedded, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache
