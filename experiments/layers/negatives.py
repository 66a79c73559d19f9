"""Do rejected answers from a model that is blind where the map says teach more than those of other layers?

    python -m experiments.layers.negatives --out runs/layers                    # the planted model
    python -m experiments.layers.negatives --out runs/layers --model twin=experiments/twin/weights \
        --map experiments/twin/map.json                                         # one that nobody planted
    python -m experiments.layers.negatives --out runs/layers --table            # the tables, from whatever is there

Every arm trains the same LoRA (all layers, rank 5: `layers: auto`) for the same number of optimizer steps; preference
rows come from `vfl.negatives` on the task's own training rows.

| arm | learns from |
|---|---|
| sft | the right answers, as many rows a step as the others have pairs |
| sft double | the same with twice as many rows: as many answers as the pairs have |
| dpo X | preference pairs alone, loss sigmoid |
| both X | preference pairs, loss sigmoid plus that of the chosen answers (TRL: `loss_type: [sigmoid, sft]`) |

X says at which layers the model was blind when it gave the rejected answers: `map` (where the task's function reads),
`random` (as many layers, drawn anew for each seed), `blind` (all of them) or `own` (none: its own wrong answers).

Tasks are of two kinds. `worn ocr` and `worn grounding` restore one function after noise in the decoder, and `ocr` is
what the twin reads half-well as it is: where the model answers part of the questions, what it says when it is blind is
another answer. (Worn counting is whole again after eight steps of sft, and leaves nothing to gain.) `poster` and `dark`
are known things drawn otherwise (experiments/layers/tasks.py), of which the model sees little.

All arms of a task share its first ROWS_OF rows. The learning rate of each loss is chosen with the map's negatives for
each kind of task, on one task of the planted model and seed 0; the other seeds, tasks and models judge. CORE arms come
first. Each run is a line of negatives.jsonl; an interrupted experiment goes on where it stopped.
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

import vfl
from experiments.layers.arms import arm_of
from experiments.layers.bed import NEW, WORN_NOISE, Bed
from experiments.layers.loop import Schedule, adapted, batches, fit, loss_of
from experiments.layers.plan import share
from experiments.layers.preference import Pair, PairLoss, pair_loss, pairs_of
from experiments.layers.tasks import TASKS, plain, write
from vfl.errors import InputError
from vfl.functionmap import FunctionMap
from vfl.models.boxes import PIXEL
from vfl.negatives.result import Negatives
from vfl.testbeds.micro.questions import FUNCTIONS
from vfl.train.adapter.lora import build_lora

RESULTS = "negatives.jsonl"
TASKS_OF = {"planted": ("worn ocr", "worn grounding", "poster", "dark"), "twin": ("ocr", "worn grounding")}
SET_ON = {"known": "worn ocr", "shifted": "poster"}
STEPS_OF, ROWS_OF = {"known": 8, "shifted": 60}, {"known": 96, "shifted": 480}
RATES = (2e-3, 5e-3)
RATED = {"sft": "sft", "both": "both map", "dpo": "dpo map"}  # the arm that sets each kind's rate
PAIR_LOSSES: dict[str, PairLoss] = {"dpo": "sigmoid", "both": "sigmoid_sft"}
SOURCES = ("map", "random", "blind", "own")
ARMS = ("sft", "sft double", *(f"{loss} {source}" for loss in PAIR_LOSSES for source in SOURCES))
CORE = ("sft", "both map", "both random", "both own")
BATCH, SEEDS, TESTED = 6, 3, 200
assert set(PAIR_LOSSES.values()) == set(get_args(PairLoss))


@dataclass(frozen=True)
class Run:
    """One training run."""

    model: str
    task: str
    arm: str
    rate: float
    seed: int

    def key(self) -> str:
        return json.dumps(asdict(self))


def loss_name(arm: str) -> str:
    """Which arms share a learning rate: sft, dpo or both."""
    return arm.partition(" ")[0]


def kind_of(task: str) -> str:
    """Whether a task is about what the model knows in part, or about known things drawn otherwise."""
    return "shifted" if task in TASKS else "known"


def function_of(task: str) -> str:
    """The function that a task is about."""
    return TASKS[task].functions[0] if task in TASKS else task.rpartition(" ")[2]


def best_rates(results: Sequence[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """The best learning rate of each kind of task and loss whose rates have all been run."""
    reached = {row["run"]: share(row["after"][NEW]) for row in results if "after" in row}
    best = {}
    for kind in SET_ON:
        for name in RATED:
            runs = rating(kind, name)
            if all(run.key() in reached for run in runs):
                best[kind, name] = max(runs, key=lambda run: reached[run.key()]).rate
    return best


def rating(kind: str, name: str) -> list[Run]:
    """The runs that set a learning rate."""
    return [Run("planted", SET_ON[kind], RATED[name], rate, 0) for rate in RATES]


def planned(model: str, rates: dict[tuple[str, str], float]) -> Iterator[Run]:
    """Runs in the order in which they decide most: rates before their arms, the core before the rest.

    Raises:
        ValueError: for another model before the planted one has set the rates.
    """
    for arms in (CORE, tuple(arm for arm in ARMS if arm not in CORE)):
        for kind in SET_ON:
            tasks = [task for task in TASKS_OF[model] if kind_of(task) == kind]
            names = dict.fromkeys(map(loss_name, arms)) if tasks else ()
            if missing := [name for name in names if (kind, name) not in rates]:
                if model != "planted":
                    raise ValueError("the planted model sets the rates: run it first")
                yield from (run for name in missing for run in rating(kind, name))
                return
            for task in tasks:
                for seed in range(SEEDS):
                    yield from (Run(model, task, arm, rates[kind, loss_name(arm)], seed) for arm in arms)


def written(out: Path, task: str) -> str:
    """The name of the folder with a task's rows, which are written where they are not there."""
    if task in TASKS:
        return task
    name = f"plain-{function_of(task)}"
    folder, temporary = out / "tasks" / name, out / "tasks" / f".{name}.tmp"
    if not folder.exists():
        shutil.rmtree(temporary, ignore_errors=True)
        taken: set[bytes] = set()
        for part, count, seed in (("train", ROWS_OF["known"], 0), ("test", TESTED, 1)):
            rng = np.random.default_rng([seed, FUNCTIONS.index(function_of(task)), 7])
            write(temporary, part, (plain(rng, function_of(task), PIXEL) for _ in range(count)), taken)
        temporary.rename(folder)
    return name


def blind_at(source: str, task: str, fmap: FunctionMap, seed: int) -> dict[str, Any]:
    """Settings of `vfl.negatives` that say where the model is blind."""
    reading = fmap.layers_of(function_of(task))
    if source == "map":
        return {"blind": reading}
    if source == "random":
        return {"blind": f"random:{len(reading)}", "seed": 100 + seed}
    return {"blind": {"blind": "all", "own": "none"}[source]}


def negatives_of(bed: Bed, run: Run, fmap: FunctionMap) -> tuple[list[Pair], Negatives]:
    """The preference pairs of a run's arm, and what their manifest says."""
    source = run.arm.rpartition(" ")[2]
    name = f"{run.model}-{run.task.replace(' ', '-')}-{source}" + (f"-{run.seed}" if source == "random" else "")
    folder = bed.out / "negatives" / name
    if not (folder / "manifest.json").exists():
        where = blind_at(source, run.task, fmap, run.seed)
        data = bed.out / "tasks" / written(bed.out, run.task) / "train.jsonl"
        count = ROWS_OF[kind_of(run.task)]
        vfl.negatives(data, bed.vlm, out=folder, first=count, batch_size=64, overwrite=True, progress=False, **where)
    manifest = Negatives.model_validate_json((folder / "manifest.json").read_bytes())
    return pairs_of(bed.vlm, folder), manifest


def train(bed: Bed, run: Run, fmap: FunctionMap, known: dict[str, Any]) -> dict[str, Any]:
    """One run: losses, seconds of a step, answers after it.

    Args:
        known: pairs that were made before, by model, task and source.
    """
    facts: dict[str, Any] = {}
    batch = 2 * BATCH if run.arm == "sft double" else BATCH
    loss: Any = loss_of
    name, kind = loss_name(run.arm), kind_of(run.task)
    rows: Sequence[Any] = []
    if name not in PAIR_LOSSES:
        rows = bed.rows(written(bed.out, run.task))[: ROWS_OF[kind]]
    else:
        source = run.arm.rpartition(" ")[2]
        place = f"{run.model} {run.task} {source} {run.seed if source == 'random' else ''}"
        if place not in known:
            known[place] = negatives_of(bed, run, fmap)
        rows, manifest = known[place]
        loss = pair_loss(PAIR_LOSSES[name])
        facts = {"blind": manifest.layers, "kept": manifest.kept, "left_out": manifest.left_out}
    arm = arm_of("thin", TASKS["worn"], {}, fmap, run.seed)  # of every task the same
    assert arm is not None
    schedule = Schedule(STEPS_OF[kind], batch, run.rate)
    with adapted(bed.vlm, build_lora(bed.vlm.model, arm.layers, arm.lora()), run.seed) as model:
        start = time.process_time()
        losses = fit(bed.vlm, model, rows, batches(len(rows), schedule, run.seed), schedule, loss=loss)
        seconds = time.process_time() - start
        after = bed.correct(written(bed.out, run.task))
    return {**facts, "step_cpu_seconds": seconds / schedule.steps, "loss": float(np.mean(losses[-10:])), "after": after}


def table(results: Sequence[dict[str, Any]]) -> str:
    """A table a model: each arm's share of right answers on the new task, the gain over sft, own old skill and others.

    The gain is the mean over seeds, each paired with sft of the same seed, with a 95 % bootstrap interval over seeds
    and items.
    """
    rates = best_rates(results)
    done = {row["run"]: row for row in results if "after" in row}
    texts = ["Learning rates: " + ", ".join(f"{' '.join(key)} {rate:g}" for key, rate in rates.items())]
    for model, tasks in TASKS_OF.items():
        tasks = tuple(task for task in tasks if f"{model} {task}" in done)
        if not tasks:
            continue
        heads = [f"{task} (before: {100 * share(done[f'{model} {task}']['after'][NEW]):.0f})" for task in tasks]
        texts += ["", f"{model}: new, gain over sft / own / others", ""]
        texts += ["| arm | " + " | ".join(heads) + " |", "|" + " --- |" * (1 + len(heads))]
        for arm in ARMS:
            cells = [_cell(task, _paired(done, rates, model, task, arm)) for task in tasks]
            if any(cells):
                texts.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(texts)


def _paired(
    done: dict[str, Any], rates: dict[tuple[str, str], float], model: str, task: str, arm: str
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """An arm's runs, each with that of sft on the same seed."""
    pairs = []
    for seed in range(SEEDS):
        run, sft = (
            Run(model, task, name, rates.get((kind_of(task), loss_name(name)), 0), seed).key() for name in (arm, "sft")
        )
        if run in done and sft in done:
            pairs.append((done[run], done[sft]))
    return pairs


def _cell(task: str, pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    if not pairs:
        return ""
    own = function_of(task)
    after = [row["after"] for row, _ in pairs]
    new = np.mean([share(answers[NEW]) for answers in after])
    gains = np.array([_digits(row) - _digits(sft) for row, sft in pairs])
    low, high = bootstrap(gains)
    kept = np.mean([share(answers[own]) for answers in after])
    others = np.mean([share(answers[name]) for answers in after for name in FUNCTIONS if name != own])
    gain = f"{100 * gains.mean():+.0f} ({100 * low:+.0f} to {100 * high:+.0f})"
    blind = pairs[0][0].get("kept")
    rows = "" if blind is None else f", {np.mean([row['kept'] for row, _ in pairs]):.0f} rows"
    return f"{100 * new:.0f}, {gain} / {100 * kept:.0f} / {100 * others:.0f}{rows}, n {len(pairs)}"


def bootstrap(gains: np.ndarray, draws: int = 4000) -> tuple[float, float]:
    """95 % interval of the mean of (S, I) differences, over seeds and items."""
    rng = np.random.default_rng(0)
    seeds, items = gains.shape
    chosen = rng.integers(seeds, size=(draws, seeds, 1)), rng.integers(items, size=(draws, 1, items))
    low, high = np.quantile(gains[chosen].mean((1, 2)), (0.025, 0.975))
    return float(low), float(high)


def _digits(row: dict[str, Any]) -> np.ndarray:
    return np.array([int(digit) for digit in row["after"][NEW]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/layers"))
    parser.add_argument("--model", default="planted", help="name=folder of another model; default: the embedded one")
    parser.add_argument("--map", type=Path, default=Path("recipes/micro/map.json"))
    parser.add_argument("--table", action="store_true", help="write negatives.md from the runs that are there")
    options = parser.parse_args()
    name, _, folder = options.model.partition("=")
    path = options.out / RESULTS
    path.parent.mkdir(parents=True, exist_ok=True)
    results = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if options.table:
        (options.out / "negatives.md").write_text(table(results) + "\n", encoding="utf-8")
        print(table(results))
        return
    fmap = FunctionMap.load(options.map)
    beds: dict[bool, Bed] = {}
    known: dict[str, Any] = {}
    while True:
        done = {row["run"] for row in results}
        left = [run for run in planned(name, best_rates(results)) if run.key() not in done]
        if not left:
            return
        run = left[0]
        worn = run.task.startswith("worn ")
        if worn not in beds:
            noise = WORN_NOISE if worn else 0.0
            beds[worn] = Bed(folder or None, options.out, noise, TESTED)
        bed = beds[worn]
        before = f"{run.model} {run.task}"
        if before in done:
            try:
                result = {"run": run.key(), **train(bed, run, fmap, known)}
            except InputError as error:  # no row gives a pair, such as where the blind model says nothing at all
                result = {"run": run.key(), "left_out": str(error)}
        else:
            result = {"run": before, "after": bed.correct(written(options.out, run.task))}
        results.append(result)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        said = {g: round(share(d), 2) for g, d in result["after"].items()} if "after" in result else result["left_out"]
        print(f"{result['run']} {said}", flush=True)


if __name__ == "__main__":
    main()
