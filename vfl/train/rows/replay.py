"""Old rows among the new ones: from data that the user names, or from probe pairs with their right answers."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import concatenate_datasets

from vfl.errors import InputError
from vfl.evaluate.sources import suite_of
from vfl.io.atomic import replacing
from vfl.models.conversation import ConversationEncoder
from vfl.models.vlm import VLM
from vfl.probes.asking import expected_text, question_of
from vfl.probes.pair import Pair, Which
from vfl.train.old_rows import OldRowsConfig
from vfl.train.recipe import Recipe
from vfl.train.rows.prepare import Prepared, prepare
from vfl.train.rows.replay_rows import replayed
from vfl.train.rows.table import ANCHOR

POOL, ANCHORS, PROBE_ROWS = "replay", "anchors", "probe-rows.jsonl"


def with_old_rows(
    prepared: Prepared, recipe: Recipe, vlm: VLM, encoder: ConversationEncoder, folder: Path, *, workers: int
) -> Prepared:
    """The training set with old rows behind its own, the same ones in every epoch: those to replay, then the anchors.

    Which rows, and that they are their share of all to the nearest row, follows from the recipe's seed alone, so a
    resumed run and every rank have the same ones. Without `data.replay` and anchors it is as it is.

    Args:
        prepared: the new rows.
        folder: of the prepared rows; the pools lie below it.
        workers: processes that decode and encode.

    Raises:
        InputError: for rows that can't be used so.
    """
    replay, anchors = recipe.data.replay, recipe.protect.anchors if recipe.protect else None
    both = prepared
    if replay is not None:
        place = folder / POOL
        pool = _pool(replay, replay.functions, "data.replay", recipe, vlm, encoder, place, workers)
        others = 0.0 if anchors is None else anchors.share
        chosen = replayed(len(prepared.rows), len(pool.rows), replay.share, recipe.seed, others=others)
        both = _behind(both, pool, chosen, "replay")
    if anchors is not None:
        assert recipe.protect is not None
        # A folder inside: what is refused is written beside it, and must not replace what is said of other rows.
        place, setting = folder / ANCHORS / "rows", "protect.anchors"
        pool = _pool(anchors, recipe.protect.functions, setting, recipe, vlm, encoder, place, workers)
        others = 0.0 if replay is None else replay.share
        chosen = replayed(
            len(prepared.rows), len(pool.rows), anchors.share, recipe.seed, others=others, setting=setting
        )
        pool = replace(pool, rows=pool.rows.add_column(ANCHOR, list(range(len(pool.rows)))))
        both = replace(both, rows=both.rows.add_column(ANCHOR, [-1] * len(both.rows)))
        both = _behind(both, pool, chosen, "anchors")
    return both


def _behind(before: Prepared, pool: Prepared, chosen: list[int], kind: str) -> Prepared:
    """Chosen rows of a pool behind others, counted in the facts under their kind."""
    return Prepared(
        rows=concatenate_datasets([before.rows, pool.rows.select(chosen)]),
        text=[*before.text, *(pool.text[n] for n in chosen)],
        image=[*before.image, *(pool.image[n] for n in chosen)],
        facts=before.facts.model_copy(update={kind: len(chosen), "files": {**before.facts.files, **pool.facts.files}}),
    )


def _pool(
    config: OldRowsConfig,
    functions: Sequence[str] | None,
    setting: str,
    recipe: Recipe,
    vlm: VLM,
    encoder: ConversationEncoder,
    folder: Path,
    workers: int,
) -> Prepared:
    """All rows that may be drawn, checked like the new ones."""
    if config.probes is not None and recipe.method == "dpo":
        raise InputError(
            f"{setting}.probes are questions with one right answer, and the method is dpo: replay preference pairs "
            f"with {setting}.data instead."
        )
    if missing := [path for path in config.data if not path.exists()]:
        raise InputError(f"There is no data at {missing[0]} ({setting}.data). Check the path.")
    source = recipe.data.model_copy(
        update={
            "train": config.data or (_written(config, functions, vlm, folder),),
            "images": config.images,
            "format": config.format,
            "replay": None,
            "token_weights": None,
        }
    )
    return prepare(source, encoder, folder, method=recipe.method, workers=workers, progress=False)


def _written(config: OldRowsConfig, functions: Sequence[str] | None, vlm: VLM, folder: Path) -> Path:
    """Probe pairs as rows: each image of a pair with the question and its right answer as the model writes it."""
    assert config.probes is not None
    pairs = suite_of(
        config.probes,
        folder / "probes",
        functions=functions,
        pairs=config.pairs,
        seed=config.probe_seed,
    )
    path = folder / PROBE_ROWS
    with replacing(path) as temporary:
        lines = [json.dumps(row) + "\n" for pair in pairs for row in _rows(vlm, pair)]
        temporary.write_text("".join(lines), encoding="utf-8")
    return path


def _rows(vlm: VLM, pair: Pair) -> list[dict[str, Any]]:
    question = question_of(vlm, pair)
    rows: list[dict[str, Any]] = []
    shown: tuple[tuple[Which, str], ...] = (("image", pair.answer), ("source_image", pair.source_answer))
    for which, answer in shown:
        encoded = vlm.ask(question, pair.path(which))
        rows.append(
            {
                "id": f"{pair.id}/{which}",
                "images": [str(pair.path(which).resolve())],
                "prompt": [{"role": "user", "content": question}],
                "completion": [{"role": "assistant", "content": expected_text(vlm, pair, answer, encoded)}],
            }
        )
    return rows
