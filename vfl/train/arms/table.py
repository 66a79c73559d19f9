"""arms.json: everything that a study came to, for further use. arms.md and arms.html are read by people.

| key | value |
|---|---|
| `schema` | `2` |
| `steps`, `batch` | of every run |
| `new`, `old` | groups of the evaluation: the new skill, and what may be forgotten |
| `tested` | group -> items that results are over |
| `validation` | how many items chose learning rates |
| `arms` | each at its chosen rate: rates tried, layers, costs, `new`, `forgotten`, and every group |
| `runs` | each finished run: its costs, and `right` and `before`: group -> item -> true or false |
| `unfinished` | arm -> runs that are left |

A rate is `{value, low, high}`, shares between 0 and 1.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from vfl.io.json_files import write_json, write_text
from vfl.train.arms.answers import RunResult
from vfl.train.arms.grids import markdown
from vfl.train.arms.page import write_page
from vfl.train.arms.run import TABLE
from vfl.train.arms.summary import StudyResult

SCHEMA = 2


def write_results(result: StudyResult, out: Path) -> list[Path]:
    """Write arms.json, arms.md and arms.html, each whole or not at all; returns what a person opens."""
    content = asdict(result) | {"runs": [_run(run, out) for run in result.runs]}
    write_json(out / TABLE, {"schema": SCHEMA, **content}, indent=1)
    write_text(out / "arms.md", markdown(result))
    return [out / "arms.md", write_page(result, out)]


def _run(result: RunResult, out: Path) -> dict[str, Any]:
    return {
        "arm": result.run.arm,
        "rate": result.run.rate,
        "seed": result.run.seed,
        "folder": str(result.run.folder.relative_to(out)),
        "layers": result.layers,
        "parameters": result.parameters,
        "bytes": result.bytes,
        "step_seconds": result.step_seconds,
        "right": result.after,
        "before": result.before,
    }
