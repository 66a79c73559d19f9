"""Folders of scores as `vfl select score` writes them, made up: for everything after scoring no model is needed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vfl.io.config import validated
from vfl.select.choose.filtering import Choice, ChoiceConfig, choose, chosen_uids
from vfl.select.shards.data_files import sources_of
from vfl.select.shards.score_folder import database, open_scores

FUNCTIONS = ("recognition", "counting", "grounding", "ocr")
STATES = 16


def schema(functions: tuple[str, ...] = FUNCTIONS) -> pa.Schema:
    fields = [("uid", pa.string()), ("position", pa.int64()), ("source", pa.string()), ("kind", pa.string())]
    fields += [(name, pa.int32()) for name in ("text_tokens", "image_tokens", "answer_tokens", "turns", "images")]
    fields += [(name, pa.float32()) for name in ("loss", "perplexity", "answer_prob", "el2n", "accuracy")]
    fields += [("exact", pa.bool_()), ("no_image_accuracy", pa.float32()), ("no_image_exact", pa.bool_())]
    fields += [("no_image_logprob_drop", pa.float32()), ("no_image_prob_drop", pa.float32())]
    fields += [("no_image_js", pa.float32()), ("no_image_token_drops", pa.list_(pa.float16()))]
    for name in functions:
        fields += [(f"drop_{name}", pa.float32()), (f"exact_{name}", pa.bool_())]
        fields += [(f"logprob_drop_{name}", pa.float32()), (f"prob_drop_{name}", pa.float32())]
        fields += [(f"js_{name}", pa.float32())]
    fields += [(name, pa.list_(pa.float16(), STATES)) for name in ("question_state", "image_state")]
    fields += [("question_terms", pa.list_(pa.uint16())), ("opening", pa.string()), ("answer", pa.string())]
    fields += [(name, pa.string()) for name in ("token_hash", "text_hash", "image_hash")]
    return pa.schema([*fields, ("full_passes", pa.int8())])


def row(
    position: int,
    *,
    functions: tuple[str, ...] = FUNCTIONS,
    drops: dict[str, float] | None = None,
    logprobs: dict[str, float] | None = None,
    solved: bool = True,
    no_image: bool = False,
    kind: str = "vision",
    **columns: Any,
) -> dict[str, Any]:
    """A score row: right with the image, wrong without it, and nothing lost but `drops` and `logprobs`."""
    vision = kind == "vision"
    made = {
        "uid": f"u{position:05}",
        "position": position,
        "source": "a",
        "kind": kind,
        "text_tokens": 20,
        "image_tokens": 64 if vision else 0,
        "answer_tokens": 4,
        "turns": 1,
        "images": int(vision),
        "loss": 0.5,
        "perplexity": 1.6,
        "answer_prob": 0.6,
        "el2n": 0.4,
        "accuracy": 1.0 if solved else 0.5,
        "exact": solved,
        "question_state": np.zeros(STATES, np.float16),
        "question_terms": [7],
        "opening": "what is there",
        "answer": f"answer {position}",
        "token_hash": f"{position:016x}",
        "text_hash": f"t{position}",
        "image_hash": f"{position * 0x9E3779B97F4A7C15 % 2**64:016x}:{position:08x}" if vision else "",
        "full_passes": 0,
    }
    if vision:
        made |= {"no_image_accuracy": float(no_image), "no_image_exact": no_image}
        made |= {"no_image_logprob_drop": 1.0, "no_image_prob_drop": 0.3, "no_image_js": 0.3}
        made |= {"no_image_token_drops": np.array([0.0, 0.01, -1.0, 3.0], np.float16)}
        made |= {"image_state": np.zeros(STATES, np.float16)}
        for name in functions:
            drop, logprob = (drops or {}).get(name, 0.0), (logprobs or {}).get(name, 0.0)
            made |= {f"drop_{name}": drop, f"exact_{name}": drop == 0, f"logprob_drop_{name}": logprob}
            made |= {f"prob_drop_{name}": logprob / 4, f"js_{name}": min(abs(logprob) / 4, 0.69)}
    return made | columns


def write_scores(
    folder: Path,
    rows: list[dict[str, Any]],
    *,
    functions: tuple[str, ...] = FUNCTIONS,
    parts: int = 3,
    errors: list[dict[str, str]] | None = None,
    **manifest: Any,
) -> Path:
    """A scores folder that holds `rows` in several parts."""
    (folder / "parts").mkdir(parents=True)
    for part in range(parts):
        some = rows[part::parts]
        pq.write_table(pa.Table.from_pylist(some, schema(functions)), folder / "parts" / f"part-{part:05}.parquet")
    if errors is not None:
        pq.write_table(pa.Table.from_pylist(errors), folder / "errors.parquet")
    solved = sum(row["exact"] for row in rows)
    counts = {"rows": len(rows) + len(errors or ()), "scored": len(rows), "errors": len(errors or ()), "solved": solved}
    defaults = {
        "kind": "vfl scores",
        "counts": counts,
        "functions": {name: [n] for n, name in enumerate(functions)},
        "model": {"id": "owner/model", "parameters": 1_000_000, "weights_sha256": "ab" * 32},
        "map": {"sha256": "cd" * 32},
        "sources": sources_of(manifest["settings"]["data"]) if manifest.get("settings", {}).get("data") else [],
        "rows": len(rows) + len(errors or ()),
        "settings": {},
    }
    (folder / "manifest.json").write_text(json.dumps(defaults | manifest))
    return folder


def choice_of(folder: Path, **settings: Any) -> tuple[Choice, list[str]]:
    """What is chosen of a fifth of the rows, unless `settings` say otherwise, and the uids."""
    config = validated(ChoiceConfig, {"budget": "20%", **settings}, source="test")
    with database(config.memory, config.threads) as connection:
        made = choose(connection, open_scores(folder), config)
        return made, list(chosen_uids(connection))


def table(folder: Path) -> dict[str, dict[str, Any]]:
    """Rows of a parquet file by uid."""
    return {scored["uid"]: scored for scored in pq.read_table(folder).to_pylist()}
