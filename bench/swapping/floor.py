"""The least that a single-layer sweep can cost, in floating-point operations of its matrix products.

Two image prefills, the question once per row from the row's layer on ((L + 1) / 2 question passes in all) and twice
unswapped, every further answer token through all layers for each of the L + 2 rows, and one row of logits per answer
token. Counted as `torch.utils.flop_counter` counts: two per multiply-add, attention without a discount for causality.
"""

from bench.swapping.model import Task


def floor_flops(task: Task, tower: int) -> int:
    """The floor, with two runs of the vision tower of `tower` operations each."""
    num_layers, shared = task.vlm.num_layers, task.target.spans[-1].end
    prompt = task.target.length
    question = _pass(task, prompt - shared, prompt)
    further = sum(_pass(task, 1, prompt + step) for step in range(1, task.num_tokens))
    rows = num_layers + 2
    return (
        2 * (tower + _pass(task, shared, shared))
        + question * (num_layers + 1) // 2
        + 2 * question
        + rows * further
        + rows * task.num_tokens * _head(task)
    )


def forward_flops(task: Task) -> int:
    """One plain forward over the prompt, the vision tower apart: the unit of the table."""
    return _pass(task, task.target.length, task.target.length) + _head(task)


def _pass(task: Task, num_queries: int, num_keys: int) -> int:
    """`num_queries` tokens through all layers, attending to `num_keys`."""
    config = task.vlm.model.config.text_config
    linear = 4 * config.hidden_size**2 + 3 * config.hidden_size * config.intermediate_size
    attention = 2 * num_keys * config.hidden_size
    return int(2 * config.num_hidden_layers * num_queries * (linear + attention))


def _head(task: Task) -> int:
    config = task.vlm.model.config.text_config
    return int(2 * config.hidden_size * config.vocab_size)
