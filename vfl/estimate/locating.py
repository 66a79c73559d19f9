"""`vfl locate` and `vfl measure`: pairs through the sweep, as `vfl.locate.pairs` runs them."""

import math
from collections.abc import Sequence
from dataclasses import replace

from vfl.engine.memory import row_bytes, row_limit
from vfl.engine.operations import head_operations, pass_operations, tower_operations
from vfl.estimate.cards import Card
from vfl.estimate.config import EstimateConfig
from vfl.estimate.cost import CONTEXT, GIB, Cost, Pass
from vfl.estimate.tokens import (
    Prompt,
    element_of,
    prefix_bytes,
    prompt_of,
    running_bytes,
    said_of,
    weight_bytes,
)
from vfl.locate.gaps import gap_blocks
from vfl.locate.layer_rule import end_blocks, single_blocks, window_blocks
from vfl.locate.schedule import AHEAD
from vfl.models.shape import Shape

PAIRS = 100
IMAGES = 3  # target, source and control
PICTURE_BYTES = 40e3  # of a generated picture of 448 pixels, as PNG
RECORD_BYTES = 60  # of a row of pairs.parquet


def locating(config: EstimateConfig, shape: Shape, card: Card) -> Cost:
    """Find the layers of functions: single layers and windows, then the gaps between named ones; at most all blocks."""
    prompt = prompt_of(config, shape, "locate")
    layers = shape.num_layers
    narrow, ends = [*single_blocks(layers), *window_blocks(layers)], end_blocks(layers)
    functions, pairs = len(config.functions), config.pairs or PAIRS
    together = 1 if config.spread else min(config.gpus, functions)
    between, wide = gap_blocks(layers)
    swept = [*narrow, *between]
    memory = sweep_memory(config, shape, prompt, card, 1 + 2 * len(swept))
    limit = rows_that_fit(config, shape, prompt, card)
    reads = weight_bytes(config, shape)
    first = visit(shape, prompt, [block[0] for block in swept], limit, reads)
    # The first pairs, which foretell the gaps, are visited once more.
    part = min(1.0, AHEAD / pairs)
    again = [
        replace(one, operations=one.operations * part, launches=one.launches * part)
        for one in visit(shape, prompt, [block[0] for block in between], limit, reads)
    ]
    further = visit(shape, prompt, [block[0] for block in (*ends, *wide)], limit, reads)
    each = f"{functions} functions of {pairs} pairs"
    return Cost(
        unit="pair",
        count=math.ceil(functions / together) * pairs,
        least=[*first, *again],
        most=[*first, *again, *further],
        memory=memory,
        disk={
            "pictures": functions * pairs * IMAGES * PICTURE_BYTES,
            "records": functions * pairs * 2 * len(swept) * RECORD_BYTES,
        },
        assumed=[
            *said_of(config, shape, prompt),
            f"{each}, all answered right; at least single layers, windows of 2 and 3 and the layers between named ones,"
            " at most windows of 4, prefixes and suffixes of every function too",
            *([f"{together} processes at a time, a function each"] if together > 1 else []),
        ],
    )


def visit(
    shape: Shape,
    prompt: Prompt,
    firsts: Sequence[int],
    limit: int,
    reads: float,
    *,
    expected: Sequence[int] = (),
    swapped: int = IMAGES - 1,
) -> list[Pass]:
    """One pair: its images prefilled, its own answers, and a row for each block and swapped image.

    As if every row said all tokens of its answer one by one; a row that says a right answer of several goes on from its
    last one.

    Args:
        firsts: the lowest layer of each block, where its rows leave the plain pass.
        limit: rows that run together.
        reads: bytes of the weights.
        expected: tokens of the two right answers, whose probability is asked for; by default those of the prompt's.
        swapped: images that are swapped in: the control's is left out where the model misreads it.
    """
    rows = 1 + swapped * len(firsts)
    prefills = IMAGES * (tower_operations(shape, prompt.picture) + pass_operations(shape, prompt.shared, prompt.shared))
    own = pass_operations(shape, prompt.after, prompt.length)
    own += (IMAGES - 1) * own + generating(shape, prompt, IMAGES)  # the plain trace, and a row for each other image
    asked = sum(pass_operations(shape, prompt.after, prompt.length, first=first) for first in firsts)
    further = [tokens - 1 for tokens in expected or 2 * [prompt.answer]]  # the last token of an answer predicts nothing
    scored = rows * sum(
        pass_operations(shape, tokens, prompt.length + tokens) + head_operations(shape, tokens) for tokens in further
    )
    batches = math.ceil(rows / limit)
    steps = 1 + sum(tokens > 0 for tokens in further) + prompt.answer
    return [
        Pass("images prefilled", prefills, 1, reads),
        Pass("unswapped answers", own, 2 + prompt.answer, reads),
        Pass(
            f"{rows} rows swapped",
            swapped * asked + scored + generating(shape, prompt, rows),
            batches * steps,
            reads,
        ),
    ]


def generating(shape: Shape, prompt: Prompt, rows: int) -> int:
    """Greedy answers after the prompt, up to the token that ends them; with the logits of their first token."""
    further = sum(pass_operations(shape, 1, prompt.length + step) for step in range(1, prompt.answer + 1))
    return rows * (further + head_operations(shape, prompt.answer + 1))


def bytes_of_row(config: EstimateConfig, shape: Shape, prompt: Prompt) -> float:
    """Memory of a row of a sweep, as the engine itself foresees it."""
    return row_bytes(
        prompt.after,
        prompt.length,
        num_layers=shape.num_layers,
        hidden=shape.hidden,
        intermediate=shape.intermediate,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocabulary=shape.vocabulary,
        element=element_of(config),
    )


def rows_that_fit(config: EstimateConfig, shape: Shape, prompt: Prompt, card: Card) -> int:
    """Rows that the engine runs together in what the weights and images leave of a card."""
    free = card.memory * GIB - sum(held(config, shape, prompt).values())
    return row_limit(max(0.0, free), bytes_of_row(config, shape, prompt))


def held(config: EstimateConfig, shape: Shape, prompt: Prompt) -> dict[str, float]:
    """Memory that does not depend on the number of rows."""
    element = element_of(config)
    return {
        "weights": weight_bytes(config, shape) / (config.gpus if config.spread else 1),
        "keys and values of the images": prefix_bytes(shape, IMAGES * prompt.shared, element),
        "activations of a prefill": running_bytes(shape, IMAGES * prompt.shared, element),
        "CUDA context": CONTEXT,
    }


def sweep_memory(config: EstimateConfig, shape: Shape, prompt: Prompt, card: Card, rows: int) -> dict[str, float]:
    """Memory of a card while rows are swept: as many at a time as the engine lets in."""
    together = min(rows, rows_that_fit(config, shape, prompt, card))
    return {
        **held(config, shape, prompt),
        f"{together} of {rows} rows at a time": together * bytes_of_row(config, shape, prompt),
    }
