"""The least that a single-layer sweep can cost, in floating-point operations of its matrix products.

Two image prefills, the question once per row from the row's layer on ((L + 1) / 2 question passes in all) and twice
unswapped, every further answer token through all layers for each of the L + 2 rows, and one row of logits per answer
token. Counted as `torch.utils.flop_counter` counts: two per multiply-add, attention without a discount for causality.
"""

from bench.swapping.model import Task
from vfl.engine.operations import head_operations, pass_operations
from vfl.models.shape import shape_of


def floor_flops(task: Task, tower: int) -> int:
    """The floor, with two runs of the vision tower of `tower` operations each."""
    shape, num_layers, shared = shape_of(task.vlm.model), task.vlm.num_layers, task.target.spans[-1].end
    prompt = task.target.length
    question = pass_operations(shape, prompt - shared, prompt)
    further = sum(pass_operations(shape, 1, prompt + step) for step in range(1, task.num_tokens))
    rows = num_layers + 2
    return (
        2 * (tower + pass_operations(shape, shared, shared))
        + question * (num_layers + 1) // 2
        + 2 * question
        + rows * further
        + rows * task.num_tokens * head_operations(shape, 1)
    )


def forward_flops(task: Task) -> int:
    """One plain forward over the prompt, the vision tower apart: the unit of the table."""
    shape = shape_of(task.vlm.model)
    return pass_operations(shape, task.target.length, task.target.length) + head_operations(shape, 1)
