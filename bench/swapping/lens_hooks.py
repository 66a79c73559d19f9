"""The same sweep by TransformerLens: its bridge around the same model, with the edits of the hook baseline.

The bridge computes attention eagerly, so that patterns can be hooked.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import DynamicCache

from bench.swapping.hooks import embed
from bench.swapping.model import Answers, Task


def prepare(task: Task) -> Callable[[], Answers]:
    """A copy of the model (the bridge replaces its modules) and the sweep on it."""
    model = copy.deepcopy(task.vlm.model)
    bridge = build_bridge_from_module(model, "LlavaForConditionalGeneration", hf_config=model.config).eval()
    return lambda: sweep_by_bridge(bridge, task)


@torch.no_grad()
def sweep_by_bridge(bridge: Any, task: Task) -> Answers:
    """Two unswapped runs with a cache of activations, then one run with hooks a layer."""
    source = embed(task.vlm.model, task.source)
    target = embed(task.vlm.model, task.target)
    caches = [_past(task), _past(task)]
    wanted = ("attn.k.hook_out", "attn.v.hook_out")
    first, keys_values = bridge.run_with_cache(
        source, names_filter=lambda name: name.endswith(wanted), **_arguments(caches[0])
    )
    unswapped = _go_on(bridge, first, caches[0], task)
    first, own = bridge.run_with_cache(
        target, names_filter=lambda name: name.endswith("attn.hook_out"), **_arguments(caches[1])
    )
    rows = [_go_on(bridge, first, caches[1], task)]
    for layer_idx in range(task.vlm.num_layers):
        at = f"blocks.{layer_idx}.attn."
        edits = {f"{at}k.hook_out": keys_values, f"{at}v.hook_out": keys_values, f"{at}hook_out": own}
        past = _past(task)
        first = bridge.run_with_hooks(
            target,
            fwd_hooks=[(name, _replace(kept[name], task.slots)) for name, kept in edits.items()],
            **_arguments(past),
        )
        rows.append(_go_on(bridge, first, past, task))
    rows.append(unswapped)
    return Answers(torch.cat([logits for logits, _ in rows]), [ids for _, ids in rows])


def _past(task: Task) -> DynamicCache | None:
    return DynamicCache() if task.num_tokens > 1 else None


def _arguments(past: DynamicCache | None) -> dict[str, Any]:
    return {"past_key_values": past, "use_cache": past is not None, "logits_to_keep": 1}


def _replace(kept: torch.Tensor, slots: torch.Tensor) -> Callable[..., torch.Tensor]:
    def edit(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        tensor[:, slots] = kept[:, slots]
        return tensor

    return edit


def _go_on(bridge: Any, first: torch.Tensor, past: DynamicCache | None, task: Task) -> tuple[torch.Tensor, list[int]]:
    logits = first[:, -1]
    ids = [int(logits.argmax())]
    while len(ids) < task.num_tokens:
        last = torch.tensor([ids[-1:]], device=logits.device)
        ids.append(int(bridge(last, **_arguments(past))[:, -1].argmax()))
    return logits.float().cpu(), ids
