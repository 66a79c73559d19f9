"""`vfl select score`: a plain pass over each row, and beside it what each ablation recomputes."""

import math
from collections.abc import Sequence

from vfl.engine.operations import head_operations, pass_operations, tower_operations
from vfl.engine.token_scores import ELEMENTS
from vfl.estimate.config import EstimateConfig
from vfl.estimate.cost import CONTEXT, Cost, Pass
from vfl.estimate.tokens import Prompt, element_of, prompt_of, running_bytes, said_of, weight_bytes
from vfl.models.shape import Shape

BATCH = 16
ROW_BYTES = 600  # of the score table, with a function's columns, words and hashes


def scoring(config: EstimateConfig, shape: Shape) -> Cost:
    """Score rows once: the image hidden at all layers, and at those of each function."""
    prompt, batch = prompt_of(config, shape, "score"), config.batch_size or BATCH
    processes = 1 if config.spread else config.gpus
    count = len(config.functions)
    # Functions read in the middle of most models: from half of the depth on at best, from the lowest layer at worst.
    least, most = (
        [Pass("row", row_operations(shape, prompt, [0, *[first] * count]), (1 + count) / batch,
              weight_bytes(config, shape))]
        for first in (shape.num_layers // 2, 0)
    )  # fmt: skip
    return Cost(
        unit="row",
        count=math.ceil(config.data_rows / processes),
        least=least,
        most=most,
        memory=_memory(config, shape, prompt, batch),
        disk={"scores": config.data_rows * (ROW_BYTES + 2 * prompt.answer)},
        assumed=[
            *said_of(config, shape, prompt),
            f"{config.data_rows:,} rows of one picture and one answer; {count} functions whose lowest layer is the "
            "middle one at best and the first at worst",
            *([f"{processes} processes"] if processes > 1 else []),
        ],
    )


def row_operations(shape: Shape, prompt: Prompt, firsts: Sequence[int]) -> int:
    """One row scored, plain and with ablations that begin at these layers (see `vfl.engine.ablated_rows`)."""
    length = prompt.length + prompt.answer
    window = prompt.after + prompt.answer - 1  # what follows the image, but the last token, which predicts nothing
    ablated = 0
    for layer in range(shape.num_layers):
        joined = sum(first <= layer for first in firsts)
        # Side by side in one row while they are shorter than what they all read, else a row each.
        keys = prompt.shared + (joined if joined * window <= prompt.shared else 1) * window
        ablated += joined * window * (2 * shape.linear[layer] + 4 * keys * shape.attention)
    return (
        tower_operations(shape, prompt.picture)
        + pass_operations(shape, length, length)
        + ablated
        + head_operations(shape, (1 + len(firsts)) * prompt.answer)
    )


def _memory(config: EstimateConfig, shape: Shape, prompt: Prompt, batch: int) -> dict[str, float]:
    element, ablations = element_of(config), 1 + len(config.functions)
    length, window = prompt.length + prompt.answer, prompt.after + prompt.answer
    logits = min(ELEMENTS, batch * prompt.answer * shape.vocabulary)
    return {
        "weights": weight_bytes(config, shape) / (config.gpus if config.spread else 1),
        f"activations of {batch} rows": running_bytes(shape, batch * length, element),
        "activations of their ablations": running_bytes(shape, batch * ablations * window, element),
        "masks": batch * (length**2 + ablations * window * (length + window)) * element,
        "logits": 6 * 4 * logits,
        "CUDA context": CONTEXT,
    }
