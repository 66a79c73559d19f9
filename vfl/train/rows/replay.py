"""Old rows among the new ones: from data that the user names, or from probe pairs with their right answers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from vfl.train.data_config import DataConfig, TrainingSet
from vfl.train.old_rows import OldRowsConfig
from vfl.train.recipe import Recipe
from vfl.train.rows.prepared import Prepared, joined
from vfl.train.rows.replay_rows import replayed, replayed_in_halves
from vfl.train.rows.set_on_disk import code, file_hash
from vfl.train.rows.table import ANCHOR

KIND, PROBE_ROWS = "probes", "probe-rows.jsonl"
REPLAY, ANCHORS = "data.replay", "protect.anchors"  # keys of the recipe
REPLAY_ERRORS, ANCHOR_ERRORS = "replay-errors.jsonl", "anchor-errors.jsonl"


def with_old_rows(
    prepared: Prepared, recipe: Recipe, vlm: VLM, read: Callable[[DataConfig, str], Prepared]
) -> Prepared:
    """The training set with old rows behind its own, the same ones in every epoch: those to replay, then the anchors.

    Which rows, and that they are their share of all to the nearest row, follows from the recipe's seed alone, so a
    resumed run and every rank have the same ones. Without `data.replay` and anchors it is as it is.

    Args:
        prepared: the new rows.
        read: prepares old ones, and writes those that are left out to a file of this name.

    Raises:
        InputError: for rows that can't be used so.
    """
    replay, anchors = recipe.data.replay, recipe.protect.anchors if recipe.protect else None
    shares = [0.0 if config is None else config.share for config in (replay, anchors)]
    new, both = len(prepared.rows), prepared
    if replay is not None:
        source = _source(replay, replay.functions, REPLAY, recipe, vlm)
        pool = read(source, REPLAY_ERRORS)
        chosen = _chosen(replay, source, pool, new, recipe.seed, others=shares[1], setting=REPLAY)
        both = _behind(both, pool, chosen, "replay")
    if anchors is not None:
        assert recipe.protect is not None
        source = _source(anchors, recipe.protect.functions, ANCHORS, recipe, vlm)
        pool = read(source, ANCHOR_ERRORS)
        chosen = _chosen(anchors, source, pool, new, recipe.seed, others=shares[0], setting=ANCHORS)
        pool = replace(pool, rows=pool.rows.add_column(ANCHOR, list(range(len(pool.rows)))))
        both = replace(both, rows=both.rows.add_column(ANCHOR, [-1] * len(both.rows)))
        both = _behind(both, pool, chosen, "anchors")
    return both


def _chosen(
    config: OldRowsConfig, source: DataConfig, pool: Prepared, new: int, seed: int, *, others: float, setting: str
) -> list[int]:
    """The rows of a pool that join the new ones."""
    if config.favour is None:
        return replayed(new, len(pool.rows), config.share, seed, others=others, setting=setting)
    (path,) = source.train[0].path
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    functions = {line["id"]: line["function"] for line in lines}
    if unknown := [name for name in config.favour if name not in functions.values()]:
        there = ", ".join(dict.fromkeys(functions.values()))
        raise InputError(f"{setting}.favour names {unknown[0]!r}; the old rows are of {there}.")
    favoured = [functions[uid] in config.favour for uid in pool.rows["uid"]]
    return replayed_in_halves(new, favoured, config.share, seed, others=others, setting=setting)


def _behind(before: Prepared, pool: Prepared, chosen: Sequence[int], kind: str) -> Prepared:
    """Chosen rows of a pool behind others, counted in the facts under their kind."""
    files = {**before.facts.files, **pool.facts.files}
    facts = before.facts.model_copy(update={kind: len(chosen), "files": files})
    return joined([(before, range(len(before.rows))), (pool, chosen)], facts)


def _source(
    config: OldRowsConfig, functions: Sequence[str] | None, setting: str, recipe: Recipe, vlm: VLM
) -> DataConfig:
    """All rows that may be drawn, which are checked like the new ones."""
    if config.probes is not None and recipe.method in ("dpo", "kto"):
        raise InputError(
            f"{setting}.probes are questions with one right answer, and the method is {recipe.method}: replay rows "
            f"of its kind with {setting}.data instead."
        )
    if missing := [path for path in config.data if not path.exists()]:
        raise InputError(f"There is no data at {missing[0]} ({setting}.data). Check the path.")
    own = {"images": config.images, "format": config.format, "replay": None, "token_weights": None}
    paths = config.data
    if config.probes is not None:
        paths = (_written(config, config.probes, functions, vlm),)
        own["images"] = paths[0].parent if config.probes in STYLES else Path(config.probes)
    return recipe.data.model_copy(update={"train": (TrainingSet(path=paths),), **own})


def _written(config: OldRowsConfig, probes: str, functions: Sequence[str] | None, vlm: VLM) -> Path:
    """Probe pairs as rows: each image of a pair with the question and its right answer as the model writes it."""
    facts = config.model_dump(mode="json", include={"probes", "pairs", "probe_seed"})
    facts |= {"functions": functions and list(functions)}
    if probes not in STYLES:
        suite = Path(probes).resolve()
        facts |= {"probes": str(suite), "suite": file_hash(suite / PROBES_FILE)}
    facts |= {"encoder": encoder_of(vlm).fingerprint(), "family": vlm.family.name, "code": code()}

    def known(folder: Path) -> Path | None:
        path = folder / PROBE_ROWS
        return path if path.exists() else None

    def make(folder: Path) -> None:
        pairs = suite_of(probes, folder, functions=functions, pairs=config.pairs, seed=config.probe_seed)
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
                "function": pair.function,
                "images": [str(pair.path(which).relative_to(root))],
                "prompt": [{"role": "user", "content": question}],
                "completion": [{"role": "assistant", "content": expected_text(vlm, pair, answer, encoded)}],
            }
        )
    return rows
