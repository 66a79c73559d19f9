"""Old rows among the new ones: from data that the user names, or from probe pairs with their right answers."""

import json
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
from vfl.train.recipe import Recipe, ReplayConfig
from vfl.train.rows.prepare import Prepared, prepare
from vfl.train.rows.replay_rows import replayed

POOL, PROBE_ROWS = "replay", "probe-rows.jsonl"


def with_replay(
    prepared: Prepared, recipe: Recipe, vlm: VLM, encoder: ConversationEncoder, folder: Path, *, workers: int
) -> Prepared:
    """The training set with old rows behind its own, the same ones in every epoch; as it is without `data.replay`.

    Which rows, and that they are `share` of all to the nearest row, follows from the recipe's seed alone, so a resumed
    run and every rank have the same ones.

    Args:
        prepared: the new rows.
        folder: of the prepared rows; the pool lies below it.
        workers: processes that decode and encode.

    Raises:
        InputError: for rows that can't be replayed.
    """
    config = recipe.data.replay
    if config is None:
        return prepared
    pool = _pool(config, recipe, vlm, encoder, folder / POOL, workers)
    chosen = replayed(len(prepared.rows), len(pool.rows), config.share, recipe.seed)
    return Prepared(
        rows=concatenate_datasets([prepared.rows, pool.rows.select(chosen)]),
        text=[*prepared.text, *(pool.text[n] for n in chosen)],
        image=[*prepared.image, *(pool.image[n] for n in chosen)],
        facts=prepared.facts.model_copy(
            update={"replay": len(chosen), "files": {**prepared.facts.files, **pool.facts.files}}
        ),
    )


def _pool(
    config: ReplayConfig, recipe: Recipe, vlm: VLM, encoder: ConversationEncoder, folder: Path, workers: int
) -> Prepared:
    """All rows that may be replayed, checked like the new ones."""
    if config.probes is not None and recipe.method == "dpo":
        raise InputError(
            "data.replay.probes are questions with one right answer, and the method is dpo: replay preference pairs "
            "with data.replay.data instead."
        )
    if missing := [path for path in config.data if not path.exists()]:
        raise InputError(f"There is no data at {missing[0]} (data.replay.data). Check the path.")
    source = recipe.data.model_copy(
        update={
            "train": config.data or (_written(config, vlm, folder),),
            "images": config.images,
            "format": config.format,
            "replay": None,
            "token_weights": None,
        }
    )
    return prepare(source, encoder, folder, method=recipe.method, workers=workers, progress=False)


def _written(config: ReplayConfig, vlm: VLM, folder: Path) -> Path:
    """Probe pairs as rows: each image of a pair with the question and its right answer as the model writes it."""
    assert config.probes is not None
    pairs = suite_of(
        config.probes,
        folder / "probes",
        functions=config.functions,
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
