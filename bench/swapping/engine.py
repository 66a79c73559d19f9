"""A single-layer sweep by this package's engine."""

import torch

from bench.swapping.model import Answers, Task
from vfl.engine.image_cache import prefill
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep


def sweep_by_engine(task: Task) -> Answers:
    """Two image prefills, then rows that join at their layer."""
    own, other = prefill(task.vlm, task.target), prefill(task.vlm, task.source)
    swaps = [Plan.swap([layer_idx], other) for layer_idx in range(task.vlm.num_layers)]
    target = sweep(task.vlm, task.target, [Plan.own(), *swaps], own=own, max_new_tokens=task.num_tokens)
    source = sweep(task.vlm, task.source, [Plan.own()], own=other, max_new_tokens=task.num_tokens)
    return Answers(torch.cat([target.logits, source.logits]), target.token_ids + source.token_ids)
