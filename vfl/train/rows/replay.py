"""Old rows among the new ones: from data that the user names, or from probe pairs with their right answers."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from vfl.errors import InputError
from vfl.evaluate.sources import suite_of
from vfl.io.cache import cached_folder
from vfl.models.conversation import encoder_of
from vfl.models.vlm import VLM
from vfl.probes.asking import expected_text, question_of
from vfl.probes.pair import PROBES_FILE, Pair, Which
from vfl.probes.style import STYLES
from vfl.train.recipe import DataConfig, Recipe, ReplayConfig, TrainingSet
from vfl.train.rows.prepared import Prepared, joined
from vfl.train.rows.replay_rows import replayed
from vfl.train.rows.set_on_disk import code, file_hash

KIND, PROBE_ROWS = "probes", "probe-rows.jsonl"


def with_replay(prepared: Prepared, recipe: Recipe, vlm: VLM, read: Callable[[DataConfig], Prepared]) -> Prepared:
    """The training set with old rows behind its own, the same ones in every epoch; as it is without `data.replay`.

    Which rows, and that they are `share` of all to the nearest row, follows from the recipe's seed alone, so a resumed
    run and every rank have the same ones.

    Args:
        prepared: the new rows.
        read: prepares the old ones.

    Raises:
        InputError: for rows that can't be replayed.
    """
    config = recipe.data.replay
    if config is None:
        return prepared
    pool = read(_source(config, recipe, vlm))
    chosen = replayed(len(prepared.rows), len(pool.rows), config.share, recipe.seed)
    files = {**prepared.facts.files, **pool.facts.files}
    facts = prepared.facts.model_copy(update={"replay": len(chosen), "files": files})
    return joined([(prepared, range(len(prepared.rows))), (pool, chosen)], facts)


def _source(config: ReplayConfig, recipe: Recipe, vlm: VLM) -> DataConfig:
    """All rows that may be replayed, which are checked like the new ones."""
    if config.probes is not None and recipe.method == "dpo":
        raise InputError(
            "data.replay.probes are questions with one right answer, and the method is dpo: replay preference pairs "
            "with data.replay.data instead."
        )
    if missing := [path for path in config.data if not path.exists()]:
        raise InputError(f"There is no data at {missing[0]} (data.replay.data). Check the path.")
    own = {"images": config.images, "format": config.format, "replay": None, "token_weights": None}
    paths = config.data
    if config.probes is not None:
        paths = (_written(config, config.probes, vlm),)
        own["images"] = paths[0].parent if config.probes in STYLES else Path(config.probes)
    return recipe.data.model_copy(update={"train": (TrainingSet(path=paths),), **own})


def _written(config: ReplayConfig, probes: str, vlm: VLM) -> Path:
    """Probe pairs as rows: each image of a pair with the question and its right answer as the model writes it."""
    facts = config.model_dump(mode="json", include={"probes", "functions", "pairs", "probe_seed"})
    if probes not in STYLES:
        suite = Path(probes).resolve()
        facts |= {"probes": str(suite), "suite": file_hash(suite / PROBES_FILE)}
    facts |= {"encoder": encoder_of(vlm).fingerprint(), "family": vlm.family.name, "code": code()}

    def known(folder: Path) -> Path | None:
        path = folder / PROBE_ROWS
        return path if path.exists() else None

    def make(folder: Path) -> None:
        pairs = suite_of(probes, folder, functions=config.functions, pairs=config.pairs, seed=config.probe_seed)
        root = folder if probes in STYLES else Path(probes)
        lines = [json.dumps(row) + "\n" for pair in pairs for row in _rows(vlm, pair, root)]
        (folder / PROBE_ROWS).write_text("".join(lines), encoding="utf-8")

    key = sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return cached_folder(KIND, key, known, make, doing="draws probes to replay")


def _rows(vlm: VLM, pair: Pair, root: Path) -> list[dict[str, Any]]:
    question = question_of(vlm, pair)
    rows: list[dict[str, Any]] = []
    shown: tuple[tuple[Which, str], ...] = (("image", pair.answer), ("source_image", pair.source_answer))
    for which, answer in shown:
        encoded = vlm.ask(question, pair.path(which))
        rows.append(
            {
                "id": f"{pair.id}/{which}",
                "images": [str(pair.path(which).relative_to(root))],
                "prompt": [{"role": "user", "content": question}],
                "completion": [{"role": "assistant", "content": expected_text(vlm, pair, answer, encoded)}],
            }
        )
    return rows
