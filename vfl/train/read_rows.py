"""The rows of a recipe, to train on and held out, read by all processes of a run alike."""

from hashlib import sha256
from typing import Any

from vfl.models.conversation import ConversationEncoder
from vfl.models.vlm import VLM
from vfl.train.data_config import DataConfig, TrainingSet
from vfl.train.in_turn import in_turn
from vfl.train.recipe import Recipe
from vfl.train.rows.prepare import check_paths, prepare
from vfl.train.rows.prepared import Prepared
from vfl.train.rows.replay import with_old_rows

ERRORS, HELDOUT_ERRORS = "errors.jsonl", "heldout-errors.jsonl"
"""In a run's folder: rows that were left out of what is trained on, replayed, and held out."""


def training_rows(recipe: Recipe, vlm: VLM, encoder: ConversationEncoder, args: Any, progress: bool) -> Prepared:
    """The rows to train on."""

    def rows(first: bool) -> Prepared:
        new = _rows(recipe.data, recipe, encoder, args, ERRORS, progress, first)

        def read(old: DataConfig, errors: str) -> Prepared:
            return _rows(old, recipe, encoder, args, errors, False, first)

        return with_old_rows(new, recipe, vlm, read)

    return in_turn(rows, args, same=_digest)


def heldout_rows(recipe: Recipe, encoder: ConversationEncoder, args: Any, progress: bool) -> Prepared:
    """The rows whose loss is measured, read as those that are trained on."""
    config = recipe.data.model_copy(
        update={"train": (TrainingSet(path=recipe.evaluation.heldout),), "replay": None, "token_weights": None}
    )
    check_paths(config)
    return in_turn(
        lambda first: _rows(config, recipe, encoder, args, HELDOUT_ERRORS, progress, first), args, same=_digest
    )


def _rows(
    config: DataConfig,
    recipe: Recipe,
    encoder: ConversationEncoder,
    args: Any,
    errors: str,
    progress: bool,
    first: bool,
) -> Prepared:
    """Rows of any data; what is left out is told by the first process alone."""
    main = args.process_index == 0
    return prepare(
        config,
        encoder,
        method=recipe.method,
        seed=recipe.seed,
        errors=recipe.out / errors if main else None,
        progress=progress and main,
        verify=first,
    )


def _digest(prepared: Prepared) -> str:
    """Tells the rows of two processes apart, as far as their lengths and the data's bytes do."""
    facts = [str(prepared.text), str(prepared.image), prepared.facts.model_dump_json()]
    return sha256("\n".join(facts).encode()).hexdigest()
