"""Small data for scoring: questions about scenes that the embedded model knows, as LLaVA rows."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vfl.probes.make import make
from vfl.probes.pair import read_suite
from vfl.probes.style import STYLES

FUNCTIONS = ["recognition", "counting", "grounding", "ocr"]
LAYERS = {"recognition": [0, 1, 2], "counting": [5], "ocr": [8]}


def turns(question: str, answer: str) -> list[dict[str, str]]:
    """One question and its answer."""
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def rows_of(folder: Path, each: int) -> list[dict[str, Any]]:
    """`each` rows a function, with their images in `folder`/images."""
    make(folder, FUNCTIONS, pairs=each, seed=3, style=STYLES["micro"])
    return [
        {"id": p.id, "image": p.image, "source": p.function, "conversations": turns(f"<image>\n{p.question}", p.answer)}
        for p in read_suite(folder)
    ]


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as a JSON array in `folder`."""
    path = folder / "data.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def table(scores: Path) -> list[dict[str, Any]]:
    """All rows of a score table, in the order of the data."""
    parts = [pq.read_table(part) for part in sorted((scores / "parts").glob("*.parquet"))]
    return sorted(pa.concat_tables(parts).to_pylist(), key=lambda row: row["position"])


def assert_alike(first: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    """The same rows of the same order; floats but for rounding."""
    for row, expected in zip(first, other, strict=True):
        assert list(row) == list(expected)
        floats = [name for name, value in expected.items() if isinstance(value, float)]
        in_float16 = ("_state", "_token_drops")
        states = [name for name in expected if name.endswith(in_float16) and expected[name] is not None]
        assert {name: row[name] for name in row if name not in (*floats, *states)} == {
            name: expected[name] for name in expected if name not in (*floats, *states)
        }
        for name in states:
            assert row[name] == pytest.approx(expected[name], rel=2e-3, abs=2e-2), (expected["uid"], name)
        for name in floats:
            assert row[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-5), (expected["uid"], name)


def errors(scores: Path) -> dict[str, str]:
    """Reasons by uid."""
    return {row["uid"]: row["reason"] for row in pq.read_table(scores / "errors.parquet").to_pylist()}
