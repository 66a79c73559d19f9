"""metrics.jsonl: one line for each thing measured in training, in the order in which it was measured.

    {"step": 20, "epoch": 0.4, "kind": "train", "loss": ..., "learning_rate": ..., "grad_norm": ...}
    {"step": 20, "epoch": 0.4, "kind": "evaluation", "groups": {group: {"n", "correct", "accuracy", "low", "high",
        "forgetting", "forgetting_low", "forgetting_high"}}}
    {"step": 20, "epoch": 0.4, "kind": "metric", "name": "swap", "result": {...}}

Forgetting is the accuracy at step 0 minus this one, paired over items. Results of metrics are as vfl/metrics/result.py
says. A number that JSON does not have (a diverged loss) stands as text: "nan", "inf".
"""

import json
import math
from pathlib import Path
from typing import Any, Literal

from vfl.io.atomic import replacing

Kind = Literal["train", "evaluation", "metric"]


class MetricsLog:
    """Appends lines, each complete on disk before the next is begun."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, step: int) -> None:
        """Go on after `step`: what an interrupted run wrote later, and a line it did not finish, is dropped."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1] if self.path.exists() else []
        kept = [line for line in lines if step > 0 and json.loads(line)["step"] <= step]
        with replacing(self.path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def append(self, step: int, epoch: float | None, kind: Kind, values: dict[str, Any]) -> None:
        """Write one line and flush it."""
        row = _finite({"step": step, "epoch": epoch, "kind": kind, **values})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
