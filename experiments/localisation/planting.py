"""Readings and answer weights of a batch under a layout: what each layer shows each question."""

from dataclasses import replace

import numpy as np
import torch

from experiments.localisation.layouts import Layout, Part, Variant
from vfl.testbeds.micro.data import SceneBatch
from vfl.testbeds.micro.questions import FUNCTIONS
from vfl.testbeds.micro.tap import NONE, OTHER, OWN

PLANTED = 0.8  # share of questions that are restricted; the others read their own image everywhere
CLOSED = {OWN: 0.15, OTHER: 0.6, NONE: 0.25}  # what a closed layer reads


def replanted(batch: SceneBatch, layout: Layout, num_layers: int, rng: np.random.Generator) -> SceneBatch:
    """The batch with readings drawn from the layout, and answer tokens that a variant does not ask for left out.

    Questions of a row are planted each by itself.
    """
    rows = batch.rows
    blocks, functions = rows.blocks.numpy(), rows.functions.numpy()
    head = rows.labels.shape[1] - blocks.shape[1]
    readings = np.full((num_layers, *blocks.shape), OWN, dtype=np.int8)
    weights = rows.weights.numpy().copy()
    for row in range(len(blocks)):
        for number in range(1, int(blocks[row].max()) + 1):
            tokens = np.flatnonzero(blocks[row] == number)
            if rng.random() >= PLANTED:
                continue
            variants = layout.variants[FUNCTIONS[functions[row, tokens[0]]]]
            variant = variants[rng.integers(len(variants))]
            readings[:, row, tokens] = drawn(rng, variant, num_layers)[:, None]
            answered = head + tokens[rows.labels[row, head + tokens].numpy() >= 0]
            weights[row, answered[~counted(len(answered), variant.part)]] = 0.0
    return replace(batch, rows=replace(rows, weights=torch.from_numpy(weights)), readings=torch.from_numpy(readings))


def drawn(rng: np.random.Generator, variant: Variant, num_layers: int) -> np.ndarray:
    """(L,) what each layer reads of one question."""
    readings = rng.choice(list(CLOSED), size=num_layers, p=list(CLOSED.values())).astype(np.int8)
    for layers, what in ((variant.own, OWN), (variant.none, NONE), (variant.other, OTHER)):
        readings[sorted(layers)] = what
    return readings


def counted(length: int, part: Part) -> np.ndarray:
    """(length,) bool, the answer tokens of a part. The first of three letters and the end are 1 and 3 tokens of 4."""
    first = np.arange(length) < max(1, (length - 1) // 2)
    return {"all": np.ones(length, dtype=bool), "first": first, "rest": ~first}[part]
