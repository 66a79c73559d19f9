"""A single-layer sweep by this package's engine."""

from bench.swapping.model import Answers, Task
from vfl.engine.joint_prefill import prefill_all
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep


def sweep_by_engine(task: Task) -> Answers:
    """Both images in one prefill, then rows that join at their layer; with every layer swapped, a row is the source."""
    layers = range(task.vlm.num_layers)
    own, other = prefill_all(task.vlm, [task.target, task.source])
    plans = [Plan.own(), *(Plan.swap([layer_idx], other) for layer_idx in layers), Plan.swap(layers, other)]
    result = sweep(task.vlm, task.target, plans, own=own, max_new_tokens=task.num_tokens)
    return Answers(result.logits, result.token_ids)
