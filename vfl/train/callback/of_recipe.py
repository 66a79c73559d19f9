"""What a recipe's `evaluation` asks, as a callback for its trainer."""

import logging
from collections.abc import Sequence
from itertools import islice

from vfl.errors import InputError
from vfl.evaluate.items import EvalItem, items_of_probes, under_system
from vfl.evaluate.sources import items_of_set, suite_of
from vfl.models.vlm import VLM
from vfl.probes.pair import Pair
from vfl.train.callback.evaluation import EvaluationCallback
from vfl.train.recipe import Recipe

logger = logging.getLogger(__name__)

PROBES = "probes"


def evaluation_callback_of(recipe: Recipe, vlm: VLM) -> EvaluationCallback | None:
    """The callback, or None for a recipe that evaluates nothing. Generated suites lie in the run's folder.

    Raises:
        InputError: for suites and data sets that can't be read, and metrics without probes.
    """
    wanted = recipe.evaluation
    if not wanted.wanted:
        if wanted.metrics:
            raise InputError("evaluation.metrics are measured on probe pairs: give evaluation.probes too.")
        return None
    pairs: list[Pair] = []
    if wanted.probes is not None:
        folder = recipe.out / PROBES
        pairs = suite_of(wanted.probes, folder, functions=wanted.functions, pairs=wanted.pairs, seed=wanted.seed)
    items: list[EvalItem] = items_of_probes(vlm, pairs)
    for name, data in wanted.data.items():
        items_of_data, left_out = items_of_set(name, data)
        if left_out:
            logger.warning("%d rows of the evaluation set %s are left out: %s ...", len(left_out), name, left_out[0])
        items += items_of_data
    return EvaluationCallback(
        vlm,
        under_system(items, recipe.data.system_prompt, vlm),
        recipe.out,
        every=wanted.every,
        at_start=wanted.at_start,
        metrics=wanted.metrics,
        metric_pairs=_first(pairs, wanted.metric_pairs) if wanted.metrics else (),
        batch=wanted.batch_size,
        settings=wanted.model_dump(mode="json"),
    )


def _first(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """The first pairs of each function."""
    names = dict.fromkeys(pair.function for pair in pairs)
    return [pair for name in names for pair in islice((pair for pair in pairs if pair.function == name), count)]
