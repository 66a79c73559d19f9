"""Does selection by function layers keep what matters? On the embedded model, with the truth known.

    python recipes/micro/select/experiment.py --out runs/micro/select [--jobs 2] [--seeds 5]

1. A pool of known composition (pool.py), and a base with head-room (worn.py).
2. `vfl select score`, and how well its classes recover the composition.
3. `vfl select filter --budget 20%` by each policy; `vfl train` on each subset, on all rows, and on what an oracle that
   knows the composition takes.
4. Accuracy on held-out probes relative to all rows, with paired bootstrap intervals.

Interrupted, it goes on where it stopped. Writes select.md and select.json.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from pool import FUNCTIONS, write_pool
from tqdm import tqdm
from worn import wear

from vfl.evaluating.result import EVALUATION, read_evaluation
from vfl.select.classes import classify

HERE = Path(__file__).resolve().parent
MAP = HERE.parent / "map.json"
POLICIES = {
    "quota": ["--policy", "quota", "--duplicates", "exact"],
    "quota, solved first": ["--policy", "quota", "--duplicates", "exact", "--unsolved", "drop"],
    "top": ["--policy", "top", "--duplicates", "exact"],
    "random": ["--policy", "random"],
    "stratified-random": ["--policy", "stratified-random"],
    "length": ["--policy", "length"],
    "perplexity": ["--policy", "perplexity"],
    "el2n": ["--policy", "el2n"],
    "no-image-gap": ["--policy", "no-image-gap"],
}
ALL, ORACLE = "all rows", "oracle"
MANY = ("quota", "random")  # policies with all seeds; the others have FEW
FEW = 3
BUDGET = 0.2
HEADROOM = 0.2
POOL = {"each": 350, "blind": 200, "repeats": 100, "wrong": 100}
WEAR = {"noise": 1.2, "steps": 80}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/micro/select"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "pool").exists():
        write_pool(out / "pool", **POOL, seed=0)
    if not (out / "lessons").exists():
        write_pool(out / "lessons", each=10, blind=400, repeats=0, wrong=0, seed=5)
    if not (out / "base").exists():
        wear(out / "base", out / "lessons", **WEAR, seed=0)
    _vfl("select", "score", out / "pool" / "pool.jsonl", "--model", out / "base", "--map", MAP, "--out", out / "scores",
         "--set", "allow_other_model=true")  # fmt: skip
    recovered = recovery(out)
    runs = plan(out, options.seeds)
    with ThreadPoolExecutor(options.jobs) as workers:
        list(tqdm(workers.map(lambda run: train(out, *run, options.jobs), runs), total=len(runs), desc="runs"))
    table = compare(out, runs)
    text = markdown(recovered, table)
    (out / "select.md").write_text(text, encoding="utf-8")
    content = {"recovered": recovered, "policies": table, "pool": POOL, "wear": WEAR, "budget": BUDGET}
    (out / "select.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(text)


def recovery(out: Path) -> dict[str, dict[str, float]]:
    """Precision and recall of each function's class and of `blind`, repeats counted under their function."""
    truth = {row["id"]: row for row in _rows(out / "pool" / "pool.jsonl")}
    table = pq.read_table(classify(out / "scores")).to_pylist()
    found: dict[str, dict[str, float]] = {}
    for name in (*FUNCTIONS, "blind"):
        wanted = {uid for uid, row in truth.items() if _function(row) == name}
        given = {row["uid"] for row in table if row["class"] == name and truth[row["uid"]]["truth"] != "wrong"}
        right = len(wanted & given)
        found[name] = {
            "rows": len(wanted),
            "precision": right / len(given) if given else float("nan"),
            "recall": right / len(wanted),
        }
    return found


def plan(out: Path, seeds: int) -> list[tuple[str, int]]:
    """Policy and seed of every run; subsets are written here."""
    names = [ALL, ORACLE, *POLICIES]
    runs = [(name, seed) for seed in range(seeds) for name in names if name in MANY or seed < FEW]
    pool = _rows(out / "pool" / "pool.jsonl")
    count = round(BUDGET * len(pool))
    for name, seed in runs:
        folder = _folder(out, name, seed)
        if (folder / "subset").exists():
            continue
        if name in POLICIES:
            _vfl("select", "filter", out / "scores", "--data", out / "pool" / "pool.jsonl", "--budget", f"{BUDGET:.0%}",
                 "--seed", str(seed), "--out", folder / "subset", *POLICIES[name])  # fmt: skip
        else:
            chosen = pool if name == ALL else _oracle(pool, count, seed)
            (folder / "subset").mkdir(parents=True)
            text = "".join(json.dumps(row) + "\n" for row in chosen)
            (folder / "subset" / "pool.jsonl").write_text(text, encoding="utf-8")
    return runs


def train(out: Path, name: str, seed: int, jobs: int) -> None:
    """One training run and its evaluation, unless it is there."""
    folder = _folder(out, name, seed)
    if (folder / "run" / EVALUATION).exists() and (folder / "run" / "adapter").exists():
        return
    (subset,) = (folder / "subset").rglob("pool.jsonl")
    recipe = yaml.safe_load((HERE / "sft.yaml").read_text(encoding="utf-8"))
    recipe |= {"model": str(out / "base"), "out": str(folder / "run"), "seed": seed}
    recipe["data"] = {"train": str(subset), "images": str(out / "pool")}
    (folder / "sft.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // jobs))
    with (folder / "log.txt").open("w") as log:
        subprocess.run(
            [sys.executable, "-m", "vfl.train.sft", folder / "sft.yaml", "--overwrite"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": threads},
            check=True,
        )


def compare(out: Path, runs: list[tuple[str, int]]) -> dict[str, dict[str, Any]]:
    """Accuracy of each policy (mean over functions), and its differences from all rows and from random."""
    answers = {name: _answers(out, name, [seed for one, seed in runs if one == name]) for name, _ in runs}
    base = read_evaluation(_folder(out, ALL, 0) / "run")[0].baseline
    assert base is not None
    table: dict[str, dict[str, Any]] = {
        "base": {"accuracy": float(np.mean([group.accuracy for group in base.groups.values()]))}
    }
    for name, found in answers.items():
        table[name] = {
            "seeds": len(found),
            "rows": len(_rows(next((_folder(out, name, 0) / "subset").rglob("pool.jsonl")))),
            "accuracy": _interval(found, found[:, :0])[0],
            "interval": _interval(found, found[:, :0])[1:],
            "against_all": _interval(found, answers[ALL]),
            "against_random": _interval(found, answers["random"]),
            "relative": float(found.mean() / answers[ALL].mean()),
        }
    return table


def markdown(recovered: dict[str, dict[str, float]], table: dict[str, dict[str, Any]]) -> str:
    """Both tables, and whether there was head-room to conclude anything."""
    lines = ["| class | rows | precision | recall |", "|---|---|---|---|"]
    for name, one in recovered.items():
        lines.append(f"| {name} | {one['rows']} | {one['precision']:.2f} | {one['recall']:.2f} |")
    base, full = table["base"]["accuracy"], table[ALL]["accuracy"]
    room = full - base
    lines += ["", f"Base {100 * base:.1f} %, trained on all rows {100 * full:.1f} %."]
    if room < HEADROOM:
        lines.append(
            f"No head-room: {100 * room:.1f} points, {100 * HEADROOM:.0f} were asked for. Nothing is concluded."
        )
    heads = ["policy", "rows", "seeds", "accuracy", "of all rows'", "points against all rows", "against random"]
    lines += ["", _line(heads), _line(["---"] * len(heads))]
    for name, one in table.items():
        if name != "base":
            lines.append(_line([name, *_cells(one)]))
    return "\n".join(lines) + "\n"


def _cells(one: dict[str, Any]) -> list[str]:
    low, high = one["interval"]
    return [
        str(one["rows"]),
        str(one["seeds"]),
        f"{100 * one['accuracy']:.1f} % ({100 * low:.1f}–{100 * high:.1f})",
        f"{100 * one['relative']:.1f} %",
        _points(one["against_all"]),
        _points(one["against_random"]),
    ]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _points(interval: tuple[float, float, float]) -> str:
    value, low, high = (100 * one for one in interval)
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def _interval(values: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Difference of the means of (seeds, items), items resampled together and seeds apart (95 %, 2,000 resamples)."""
    rng = np.random.default_rng(0)
    paired = other.shape[1] > 0
    items = values.shape[1]
    found = np.empty(2000)
    for n in range(len(found)):
        chosen = rng.integers(items, size=items)
        found[n] = values[rng.integers(len(values), size=len(values))][:, chosen].mean()
        if paired:
            found[n] -= other[rng.integers(len(other), size=len(other))][:, chosen].mean()
    value = values.mean() - (other.mean() if paired else 0.0)
    low, high = np.quantile(found, (0.025, 0.975))
    return float(value), float(low), float(high)


def _answers(out: Path, name: str, seeds: list[int]) -> np.ndarray:
    """(seeds, items) of 0 or 1, items in one order; every function has as many."""
    rows = []
    for seed in seeds:
        _, answered = read_evaluation(_folder(out, name, seed) / "run")
        rows.append([float(one.correct) for one in sorted(answered, key=lambda one: one.id)])
    return np.array(rows)


def _oracle(pool: list[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """Right rows only, no repeats, the functions in equal parts: what a person who knew the pool would take."""
    rng = Random(f"oracle/{seed}")
    chosen = []
    for function in FUNCTIONS:
        rows = [row for row in pool if row["truth"] == function]
        chosen += rng.sample(rows, count // len(FUNCTIONS))
    rng.shuffle(chosen)
    return chosen


def _function(row: dict[str, Any]) -> str:
    """The function that a row is about: what its id begins with, for repeats that of the row with the same picture."""
    if row["truth"] in (*FUNCTIONS, "blind"):
        return str(row["truth"])
    return Path(row["images"][0]).name.split("-")[0] if row["truth"] == "repeat" else "wrong"


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _folder(out: Path, name: str, seed: int) -> Path:
    return out / "runs" / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"


def _vfl(*arguments: object) -> None:
    subprocess.run([Path(sys.executable).with_name("vfl"), *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
