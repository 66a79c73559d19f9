"""The same sweep by nnsight: one trace per swapped layer on the same model, with the edits of the hook baseline."""

import copy
from collections.abc import Callable

import nnsight
import torch
from transformers import DynamicCache

from bench.swapping.hooks import embed, go_on
from bench.swapping.model import Answers, Task


def prepare(task: Task) -> Callable[[], Answers]:
    """A copy of the model (nnsight wraps its forwards) and the sweep on it."""
    model = copy.deepcopy(task.vlm.model)
    return lambda: sweep_by_traces(model, nnsight.NNsight(model), task)


@torch.no_grad()
def sweep_by_traces(model: torch.nn.Module, traced: nnsight.NNsight, task: Task) -> Answers:
    """Two unswapped traces that record, then one trace a layer."""
    slots, num_tokens = task.slots, task.num_tokens
    layers = traced.model.language_model.layers
    prompts = {"source": embed(model, task.source), "target": embed(model, task.target)}
    recorded, rows = {}, {}
    for name, embedded in prompts.items():
        cache = DynamicCache() if num_tokens > 1 else None
        with traced.trace(inputs_embeds=embedded, past_key_values=cache, use_cache=num_tokens > 1, logits_to_keep=1):
            seen = nnsight.save([])
            for layer in layers:
                attention = layer.self_attn
                seen.append(
                    (
                        attention.k_proj.output[:, slots],
                        attention.v_proj.output[:, slots],
                        attention.output[0][:, slots],
                    )
                )
            first = traced.output.logits[:, -1].save()
        recorded[name] = seen
        rows[name] = go_on(model, first, cache, num_tokens)
    swapped = []
    for layer_idx in range(task.vlm.num_layers):
        keys, values, _ = recorded["source"][layer_idx]
        own = recorded["target"][layer_idx][2]
        cache = DynamicCache() if num_tokens > 1 else None
        with traced.trace(
            inputs_embeds=prompts["target"], past_key_values=cache, use_cache=num_tokens > 1, logits_to_keep=1
        ):
            attention = layers[layer_idx].self_attn
            attention.k_proj.output[:, slots] = keys
            attention.v_proj.output[:, slots] = values
            attention.output[0][:, slots] = own
            first = traced.output.logits[:, -1].save()
        swapped.append(go_on(model, first, cache, num_tokens))
    answers = [rows["target"], *swapped, rows["source"]]
    return Answers(torch.cat([logits for logits, _ in answers]), [ids for _, ids in answers])
