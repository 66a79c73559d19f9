"""Scores of a second round: a model that has learned from a first, small choice scores the pool again.

Where a base answers little, what its wrong answers depend on says little of what a question is about. So a tenth is
chosen by the first scores and trained on, the adapter is merged, and this model scores all rows; policies then choose
from these scores, and what they choose is trained on the base, as ever. By the commands that a user has.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

FIRST = "10%"
# Those of trials.Settings.
RECIPE = {
    "dtype": "float32",
    "layers": "full",
    "lora": {"r": 16, "lora_alpha": 16},
    "trainer": {"learning_rate": 2e-3, "per_device_train_batch_size": 4, "num_train_epochs": 1, "save_steps": 1000},
    "seed": 0,
}


def second_scores(first: Path, pool: Path, model: Path | str | None, fmap: Path, out: Path) -> Path:
    """The folder of the second scores, made if it isn't there.

    Args:
        first: folder of the first scores.
        pool: rows, as they were scored.
        model: the base.
        fmap: its map.
        out: folder for the second scores; what was chosen first, the run and its model lie beside it.
    """
    if (out / "manifest.json").exists():
        return out
    subset, run, merged = (out.with_name(f"{out.name}-{what}") for what in ("subset", "run", "merged"))
    for folder in (subset, run, merged, out):
        shutil.rmtree(folder, ignore_errors=True)
    command("select", "filter", first, "--budget", FIRST, "--out", subset)
    data = {"train": str(subset / "data" / pool.name), "images": str(pool.parent)}
    recipe = out.with_name(f"{out.name}-recipe.yaml")
    recipe.write_text(yaml.safe_dump({**RECIPE, "out": str(run), "data": data}), encoding="utf-8")
    command("train", recipe, *([] if model is None else [f"model={model}"]))
    command("merge", run / "adapter", "--out", merged, "--dtype", "float32")
    command(
        "select",
        "score",
        pool,
        "--model",
        merged,
        "--map",
        fmap,
        "--out",
        out,
        "--dtype",
        "float32",
        "--allow-other-model",
    )
    return out


def command(*arguments: object) -> None:
    """Run one of the project's commands."""
    subprocess.run([Path(sys.executable).with_name("vfl"), *map(str, arguments)], check=True)
