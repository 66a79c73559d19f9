"""What a person launches from train/ and select/ is run, each once, in a process of its own."""

import os
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import score_rows
import trained
import warm

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.relative_to(ROOT) for folder in ("train", "select") for path in (ROOT / folder).glob("*.py"))


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Scores that select/score.py made, and their data."""
    folder = tmp_path_factory.mktemp("scored")
    data = score_rows.write(folder, score_rows.rows_of(folder, 2))
    done = warm.finished(
        [
            str(ROOT / "select" / "score.py"), f"data={data}", f"images={folder}", f"out={folder / 'scores'}",
            "layers={counting: [5], ocr: [8]}", "batch_size=8",
        ],
        trained.environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "scores", data


def test_these_are_the_scripts():
    assert [str(path) for path in SCRIPTS] == [
        "select/filter.py", "select/ray_score.py", "select/score.py", "train/dpo.py", "train/grpo.py", "train/sft.py",
    ]  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_each_says_how_it_is_launched_and_refuses_bad_input(script, tmp_path):
    shown = warm.finished([str(ROOT / script), "--help"], trained.environment())
    assert shown.returncode == 0, shown.stderr
    assert "usage: " in shown.stdout.lower()
    refused = warm.finished([str(ROOT / script), str(tmp_path / "none.yaml")], trained.environment())
    assert refused.returncode == 2, refused.stderr
    assert "Traceback" not in refused.stderr
    if script.stem != "filter":
        assert "none.yaml" in refused.stderr
    text = (ROOT / script).read_text(encoding="utf-8")
    launchers = ("torchrun", "accelerate launch", "deepspeed", "sbatch")
    assert all(launcher in text for launcher in launchers) or script.stem in ("filter", "ray_score")


def test_preferences_are_trained(qwen, tmp_path):
    rows = trained.write_data(tmp_path / "data", ["pair"] * 4)
    recipe = trained.write_recipe(tmp_path / "recipe.yaml", trained.settings(qwen, rows, tmp_path / "out"))
    done = warm.finished([str(ROOT / "train" / "dpo.py"), str(recipe)], trained.environment())
    assert done.returncode == 0, done.stderr
    assert trained.weights(tmp_path / "out")


def test_the_job_trains(qwen, tmp_path):
    """train/slurm.sh on one machine, with commands of SLURM's names that run what they are given here."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, line in (("srun", 'exec "$@"'), ("scontrol", "echo localhost")):
        (tools / name).write_text(f"#!/bin/bash\n{line}\n")
        (tools / name).chmod(0o755)
    (tools / "torchrun").write_text(f'#!/bin/bash\nexec "{warm.python()}" -m torch.distributed.run "$@"\n')
    (tools / "torchrun").chmod(0o755)
    rows = trained.write_data(tmp_path / "data", ["image"] * 4)
    recipe = trained.write_recipe(tmp_path / "recipe.yaml", trained.settings(qwen, rows, tmp_path / "out"))
    done = subprocess.run(
        ["bash", str(ROOT / "train" / "slurm.sh"), str(ROOT / "train" / "sft.py"), str(recipe), "trainer.max_steps=1"],
        env=trained.environment(
            PATH=f"{tools}:{os.environ['PATH']}",
            SLURM_JOB_NODELIST="localhost",
            SLURM_JOB_NUM_NODES="1",
            SLURM_GPUS_ON_NODE="1",
            SLURM_JOB_ID="1",
            PORT="0",
            PYTHON_EXEC=str(warm.python()),
        ),
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert trained.weights(tmp_path / "out")


def test_rows_are_scored(scores):
    folder, _ = scores
    assert len(score_rows.table(folder)) == 8
    assert {"drop_counting", "drop_ocr"} <= set(pq.read_schema(next((folder / "parts").glob("*.parquet"))).names)


def test_a_subset_is_chosen(scores, tmp_path):
    folder, data = scores
    done = warm.finished(
        [
            str(ROOT / "select" / "filter.py"), str(folder), "--data", str(data), "--budget", "4",
            "--policy", "random", "--out", str(tmp_path / "subset"),
        ],
        trained.environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "subset" / "ids.txt").read_text().split()) == 4


def test_rows_are_scored_on_ray(scores, tmp_path):
    pytest.importorskip("ray")
    _, data = scores
    done = warm.finished(
        [
            str(ROOT / "select" / "ray_score.py"), "--workers", "1", f"data={data}", f"images={data.parent}",
            f"out={tmp_path / 'scores'}", "layers={counting: [5]}",
        ],
        trained.environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(score_rows.table(tmp_path / "scores")) == 8
