"""Does selection by function layers keep what matters? On small models, with the truth known, and a pretrained decoder.

    python -m experiments.selection.experiment --out runs/selection [--until MINUTES] [--table-only]
        [--setting NAME ...] [--policy NAME ...] [--seed N ...]

1. Settings: a pool of known composition (pools.py) and a base with head-room (worn.py).
2. `vfl select score`, once a setting.
3. Runs: a policy chooses to a budget, LoRA is trained on what it chose (trials.py), held-out questions are asked.
4. Tables: accuracy, and its difference from random with intervals over seeds and questions (table.py).

Runs are made in the order that decides most. Interrupted, it goes on where it stopped. Processes side by side take
other seeds, each with an `--out` of its own; their results.jsonl, one after the other, are those of one process.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

import vfl
from experiments.selection.deep_trials import DeepTrials
from experiments.selection.easy import write_easy
from experiments.selection.oracles import ORACLES
from experiments.selection.pool import write_pool
from experiments.selection.pools import (
    write_even,
    write_even_seeing,
    write_mixed,
    write_phrased,
    write_phrased_anew,
    write_phrased_dirty,
    write_phrased_turned,
    write_reading,
    write_seeing,
    write_skewed,
    write_taught,
    write_turned,
)
from experiments.selection.rounds import command, second_scores
from experiments.selection.table import AGAIN, ALL, LONGER, ORACLE, write_tables
from experiments.selection.trials import Trials
from experiments.selection.worn import wear
from vfl.data import Sample, read
from vfl.io.config import validated
from vfl.select.choose.filtering import ChoiceConfig, choose, chosen_uids
from vfl.select.shards.score_folder import database, open_scores
from vfl.train.rows.table import conversation, write_rows

HERE = Path(__file__).resolve().parent
PLANTED = HERE.parents[1] / "recipes" / "micro" / "map.json"
TWIN = HERE.parent / "twin"
SMOL = HERE.parents[1] / "recipes" / "smol" / "map.json"


@dataclass(frozen=True)
class Base:
    """A model with head-room (worn.py).

    Attributes:
        noise: in its decoder; 0 leaves it as it is, for pools that ask what it does not know.
        model: folder of the weights before, or a name; None for the embedded model.
        map: of its function layers.
        fused: whether its decoder is one that fused.py knows.
    """

    noise: float
    seed: int
    model: Path | str | None = None
    map: Path = PLANTED
    fused: bool = True


BASES = {
    "worn": Base(1.2, 0),
    "less-worn": Base(0.9, 1),
    "other-worn": Base(1.2, 2),
    "other-less-worn": Base(0.9, 3),
    "third-worn": Base(1.2, 4),
    "third-less-worn": Base(0.9, 5),
    "fourth-less-worn": Base(0.9, 7),
    "twin-worn": Base(1.2, 0, TWIN / "weights", TWIN / "map.json"),
    "twin-less-worn": Base(0.9, 1, TWIN / "weights", TWIN / "map.json"),
    "smol": Base(0.0, 0, "smol", SMOL, fused=False),
}
WEAR_STEPS = 80


@dataclass(frozen=True)
class Setting:
    """A pool, what it is drawn with, and the base that is trained on it."""

    write: Callable[[Path, int], None]
    pool: str
    seed: int
    base: str


SETTINGS = {
    # these judge; phrased, turned and taught set what the image speaks against, which mixed and phrased, anew judge
    "reading": Setting(write_reading, "reading", 2, "third-worn"),
    "phrased, turned": Setting(write_phrased_turned, "phrased-turned", 2, "third-less-worn"),
    "seeing, twin": Setting(write_seeing, "seeing", 1, "twin-worn"),
    "even seeing, twin": Setting(write_even_seeing, "even-seeing", 1, "twin-less-worn"),
    "taught, smol": Setting(write_taught, "taught", 1, "smol"),
    "mixed, smol": Setting(write_mixed, "mixed", 2, "smol"),
    "phrased, anew": Setting(write_phrased_anew, "phrased-anew", 3, "fourth-less-worn"),
    "easy-VQA, smol": Setting(write_easy, "easy", 1, "smol"),
    # on these constants were set, or faults of the method found
    "turned": Setting(write_turned, "turned", 1, "other-worn"),
    "phrased and dirty": Setting(write_phrased_dirty, "phrased-dirty", 1, "other-less-worn"),
    "skewed": Setting(write_skewed, "skewed", 0, "worn"),
    "even, less worn": Setting(write_even, "even", 0, "less-worn"),
    "phrased, less worn": Setting(write_phrased, "phrased", 0, "less-worn"),
    "even": Setting(write_even, "even", 0, "worn"),
}
JUDGING, PRETRAINED, ANEW = tuple(SETTINGS)[:4], tuple(SETTINGS)[4:6], tuple(SETTINGS)[6:7]
PUBLIC, SEEN = tuple(SETTINGS)[7:8], tuple(SETTINGS)[8:]
POLICIES: dict[str, dict[str, Any]] = {
    "balanced": {"policy": "balanced"},
    "quota": {"policy": "quota", "duplicates": "exact"},
    "random": {"policy": "random"},
    "top": {"policy": "top", "duplicates": "exact"},
    "stratified-random": {"policy": "stratified-random"},
    "length": {"policy": "length"},
    "perplexity": {"policy": "perplexity"},
    "el2n": {"policy": "el2n"},
    "no-image-gap": {"policy": "no-image-gap"},
    "coincide": {"policy": "coincide"},
    "ccs": {"policy": "ccs"},
    "prism": {"policy": "prism"},
    "semdedup": {"policy": "semdedup"},
    "vig": {"policy": "vig"},
    "balanced, steps of all": {"policy": "balanced"},
    "random, steps of all": {"policy": "random"},
    "balanced, second round": {"policy": "balanced"},
    "balanced, natural shares": {"policy": "balanced", "balance": {"level": 0, "least": 1}},
    "balanced, equal shares": {"policy": "balanced", "balance": {"level": 1, "least": 1}},
    "balanced, no spread": {"policy": "balanced", "balance": {"spread": False}},
    "balanced, junk kept": {"policy": "balanced", "balance": {"drop": ()}},
    "balanced, words alone": {"policy": "balanced", "balance": {"clusters": "words"}},
    "balanced, effects alone": {"policy": "balanced", "balance": {"clusters": "effects"}},
}
FIRST = ("random", "balanced", ORACLE)
PAIR = FIRST[:2]
LITERATURE = ("coincide", "ccs", "prism", "semdedup", "vig")
EQUAL_STEPS = tuple(name for name in POLICIES if name.endswith(LONGER))
SECOND = tuple(name for name in POLICIES if name.endswith(AGAIN))
PARTS = tuple(name for name in POLICIES if name.startswith("balanced, ") and name not in (*EQUAL_STEPS, *SECOND))
OTHERS = ("top", "stratified-random", "length", "perplexity", "el2n", "no-image-gap")
SEEDS, FEW, MOST, STEPPED = 5, 3, 19, 8
BUDGETS = (0.1, 0.4)  # beside 0.2
WEAK = ("phrased, turned", "taught, smol")  # whose base answers little
Run = tuple[str, str, float, int]
"""Setting, policy, budget, seed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/selection"))
    parser.add_argument("--until", type=float, help="minutes after which no further run is begun")
    parser.add_argument("--setting", action="append", help="run these alone; may be given several times")
    parser.add_argument("--policy", action="append", help="run these alone; may be given several times")
    parser.add_argument("--first-seed", type=int, default=0, help="tables of the seeds from this one on")
    parser.add_argument("--seed", action="append", type=int, help="run these alone; may be given several times")
    parser.add_argument("--table-only", action="store_true", help="write the tables of what is there")
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * (options.until or 10**6)
    done = {(run["setting"], run["policy"], run["budget"], run["seed"]) for run in results(out)}
    settings, policies = options.setting or SETTINGS, options.policy or {ALL, *ORACLES, *POLICIES}
    seeds = options.seed or range(MOST)
    wanted = [run for run in dict.fromkeys(plan()) if run[0] in settings and run[1] in policies and run[3] in seeds]
    left = [] if options.table_only else [run for run in wanted if run not in done]
    for run in tqdm(left, desc="runs"):
        if time.monotonic() > end:
            break
        with (out / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(made(out, *run)) + "\n")
    shown = [run for run in results(out) if run["seed"] >= options.first_seed]
    write_tables(out, shown, list(SETTINGS), [*ORACLES, *POLICIES])


def plan() -> Iterator[Run]:
    """All runs, those that decide most first."""
    for setting in (*PRETRAINED, *ANEW, *JUDGING):  # one after the other: one whole setting says more than four halves
        yield from ((setting, name, 0.2, seed) for seed in range(SEEDS) for name in FIRST)
        yield setting, ALL, 1.0, 0
    yield from (
        (setting, name, b, seed) for seed in range(SEEDS) for b in BUDGETS for setting in JUDGING for name in PAIR
    )
    more = range(SEEDS, MOST)
    yield from (
        (setting, name, b, seed) for seed in more for b in (0.2, *BUDGETS) for setting in JUDGING for name in PAIR
    )
    yield from ((setting, name, 0.2, seed) for seed in more for setting in ANEW for name in PAIR)
    yield from (
        (setting, name, b, seed)
        for seed in range(MOST)
        for b in (0.2, *BUDGETS)
        for setting in PRETRAINED
        for name in PAIR
    )
    yield from ((setting, name, 0.2, seed) for seed in range(SEEDS) for setting in PUBLIC for name in PAIR)
    yield from ((setting, ALL, 1.0, 0) for setting in PUBLIC)
    yield from (
        (setting, name, b, seed) for seed in range(SEEDS) for b in BUDGETS for setting in PUBLIC for name in PAIR
    )
    yield from ((setting, name, 0.2, seed) for seed in range(FEW) for setting in PUBLIC for name in LITERATURE)
    yield from ((setting, name, 0.2, seed) for seed in range(SEEDS) for setting in PRETRAINED for name in ORACLES)
    yield from (
        (setting, name, 0.2, seed)
        for seed in range(SEEDS)
        for setting in PRETRAINED
        for name in ("quota", *LITERATURE, *OTHERS)
    )
    yield from ((setting, ALL, 1.0, seed) for seed in range(SEEDS) for setting in PRETRAINED)
    yield from ((setting, "quota", 0.2, seed) for seed in range(SEEDS) for setting in JUDGING)
    yield from ((setting, name, 0.2, seed) for seed in range(FEW) for setting in JUDGING for name in LITERATURE)
    yield from (
        (setting, name, 0.2, seed) for seed in range(STEPPED) for setting in (*JUDGING, *ANEW) for name in EQUAL_STEPS
    )
    yield from ((setting, ALL, 1.0, seed) for seed in (1, 2) for setting in (*JUDGING, *ANEW))
    yield from ((setting, name, 0.2, seed) for seed in range(FEW) for setting in JUDGING for name in PARTS)
    yield from ((setting, name, 0.2, seed) for seed in range(FEW) for setting in PRETRAINED for name in EQUAL_STEPS)
    yield from ((setting, name, 0.2, seed) for seed in range(SEEDS) for setting in SEEN for name in FIRST)
    yield from ((setting, ALL, 1.0, 0) for setting in SEEN)
    yield from ((setting, name, b, seed) for seed in range(FEW) for b in BUDGETS for setting in SEEN for name in PAIR)
    yield from ((setting, name, 0.2, seed) for seed in range(FEW) for setting in JUDGING for name in OTHERS)
    yield from ((setting, "quota", 0.2, seed) for seed in range(SEEDS) for setting in SEEN)
    yield from ((setting, "quota", b, seed) for seed in range(SEEDS) for b in BUDGETS for setting in JUDGING)
    weak = (*WEAK, *ANEW)
    yield from ((setting, name, 0.2, seed) for seed in range(MOST) for setting in weak for name in SECOND)
    # what there is to win, and by what
    yield from ((setting, name, 0.2, seed) for seed in range(SEEDS) for setting in WEAK for name in ORACLES)


def results(out: Path) -> list[dict[str, Any]]:
    """What runs came to, as far as they were made."""
    path = out / "results.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def made(out: Path, setting: str, policy: str, budget: float, seed: int) -> dict[str, Any]:
    """One run: choose, train, ask."""
    stand = stand_of(out, setting)
    began = time.process_time()
    scores = stand.scores
    if policy in SECOND:
        base = SETTINGS[setting].base
        again = scores.with_name(f"{scores.name}-second")
        scores = second_scores(scores, stand.data, base_of(out, base), BASES[base].map, again)
    uids = chosen(stand, policy, budget, seed, scores)
    selected = time.process_time()
    epochs = len(stand.pool) / len(uids) if policy in EQUAL_STEPS else 1
    stand.trials.train([stand.rows[uid] for uid in uids], seed, round(epochs))
    trained = time.process_time()
    right = stand.trials.right(stand.questions)
    return {
        "setting": setting,
        "policy": policy,
        "budget": budget,
        "seed": seed,
        "rows": len(uids),
        "right": "".join(str(int(one)) for one in right),
        "functions": stand.functions,
        "seconds": {"select": selected - began, "train": trained - selected, "score": stand.scoring},
        "base": stand.before,
    }


@dataclass(frozen=True)
class Stand:
    """A setting made ready: scores, the pool's rows encoded, the questions."""

    scores: Path
    data: Path
    pool: list[dict[str, Any]]
    trials: Trials | DeepTrials
    rows: dict[str, Any]
    questions: list[Any]
    functions: list[str]
    before: float  # accuracy of the base
    scoring: float  # seconds of the processor


@cache
def stand_of(out: Path, name: str) -> Stand:
    setting = SETTINGS[name]
    folder = out / f"{setting.pool}-{setting.seed}"
    if not folder.exists():
        setting.write(folder, setting.seed)
    base = base_of(out, setting.base)
    scores = out / f"scores-{folder.name}-{setting.base}"
    if not (scores / "seconds").exists():
        before = _children()
        command("select", "score", folder / "pool.jsonl", "--model", base, "--map", BASES[setting.base].map,
                "--out", scores, "--dtype", "float32", "--allow-other-model")  # fmt: skip
        (scores / "seconds").write_text(f"{_children() - before}")
    trials: Trials | DeepTrials
    if BASES[setting.base].fused:  # for small decoders, which a processor runs faster than a GPU starts their kernels
        trials = Trials(vfl.load(base, device="cpu"))
    else:
        trials = DeepTrials(vfl.load(base, attn_implementation="eager", dtype="float32"))
    uids, rows = _encoded(trials, folder / "pool.jsonl", out / "rows.arrow")
    _, questions = _encoded(trials, folder / "test.jsonl", out / "rows.arrow")
    asked = [row["truth"] for row in lines_of(folder / "test.jsonl")]
    right = trials.right(questions)  # adapters are zero
    before = sum(right) / len(right)
    seconds = float((scores / "seconds").read_text())
    pool = lines_of(folder / "pool.jsonl")
    return Stand(
        scores,
        folder / "pool.jsonl",
        pool,
        trials,
        dict(zip(uids, rows, strict=True)),
        questions,
        asked,
        before,
        seconds,
    )


def base_of(out: Path, name: str) -> Path | str | None:
    """The worn model, made if it isn't there; one without noise as it is."""
    folder, base = out / f"base-{name}", BASES[name]
    if not base.noise:
        return base.model
    if not folder.exists():
        lessons = out / "lessons"
        if not lessons.exists():
            write_pool(lessons, each=10, blind=400, repeats=0, wrong=0, seed=5)
        wear(folder, lessons, model=base.model, noise=base.noise, steps=WEAR_STEPS, seed=base.seed)
    return folder


def chosen(stand: Stand, policy: str, budget: float, seed: int, scores: Path) -> list[str]:
    """The uids that a policy takes by these scores."""
    if policy == ALL:
        return [row["id"] for row in stand.pool]
    if policy in ORACLES:
        return ORACLES[policy](stand.pool, round(budget * len(stand.pool)), seed)
    given = {"budget": f"{budget:.0%}", "seed": seed, "threads": 1, **POLICIES[policy]}
    config = validated(ChoiceConfig, given, source=policy)
    with database(config.memory, config.threads) as connection:
        choose(connection, open_scores(scores), config)
        return list(chosen_uids(connection))


def _encoded(trials: Trials | DeepTrials, path: Path, scratch: Path) -> tuple[list[str], list[Any]]:
    samples = [row for row in read(path) if isinstance(row, Sample)]
    stored = write_rows(samples, scratch)
    return [row.uid for row in samples], trials.encode([conversation(one) for one in stored])


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
