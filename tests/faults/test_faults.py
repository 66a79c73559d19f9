"""Every job with a folder meets every fault, goes on as docs/faults.md says, and ends like one that met none.

Processes are killed by SIGKILL at random moments, the disk becomes full at random places, and a second process comes to
the same folder. `fault_jobs.JOBS` says how often; `faulted.py` does it.
"""

import json
import os

import faulted
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import score_rows
import tiny
import trained
import warm
from fault_jobs import JOBS, KILLED, OTHERS
from safetensors.torch import load_file

pytestmark = pytest.mark.long


# Two arms of two steps.
STUDY = ("study.arms={three: {layers: '3'}, two: {layers: 2-3}}", "study.seeds=1", "trainer.max_steps=2",
         "trainer.save_steps=1", "evaluation.at_start=false")  # fmt: skip


def layers(which):
    return [word for name, some in which.items() for word in ("--set", f"layers.{name}={some}")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return score_rows.write(folder, score_rows.rows_of(folder, 2))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.build("qwen2_5_vl", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def recipe(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    own = {"path": str(trained.write_data(folder / "own", ("image", "text", "image"))), "max_new_tokens": 4}
    evaluation = {"evaluation": {"data": {"own": own}, "every": 3}}
    rows = trained.write_data(folder / "rows", trained.SHORT_KINDS)
    settings = trained.settings(model, rows, folder / "unused", **trained.SHORT, **evaluation)
    return trained.write_recipe(folder / "recipe.yaml", settings)


@pytest.fixture(scope="module")
def command(request, data, recipe, model):
    """command(name) -> the words of a job, less how it goes on, the file that it writes last, and what is imported."""
    scored = ["--set", "shard_rows=2", "--set", "expiry=1", *layers(score_rows.LAYERS)]
    drawn = ["--functions", "counting", "--out", "{out}"]

    def whole(name):
        return str(request.getfixturevalue("met")(name)["folder"] / "whole")

    made = {
        "train": lambda: (["train", str(recipe), "out={out}"], "report.html", "vfl.train.run"),
        "select score": lambda: (
            ["select", "score", str(data), "--out", "{out}", *scored],
            "",  # the same command may follow at any time
            "vfl.select.score.run",
        ),
        "locate": lambda: (
            ["locate", "--pairs", "3", "--mode", "single", "--set", "part_pairs=1", *drawn],
            "map.json",
            "vfl.locate.run",
        ),
        "measure": lambda: (
            ["measure", "--pairs", "2", "--metrics", "var,cosine", *drawn],
            "metrics.json",
            "vfl.measure.run",
        ),
        "negatives": lambda: (
            ["negatives", str(data), "--blind", "all", "--max-new-tokens", "8", "--out", "{out}"],
            "manifest.json",
            "vfl.negatives.run",
        ),
        "evaluate": lambda: (["evaluate", "--pairs", "4", *drawn], "evaluation.json", "vfl.evaluate.run"),
        "arms": lambda: (
            ["arms", str(recipe), "--out", "{out}", *STUDY],
            "",  # tables are written after each failure, too
            "vfl.commands.arms",
        ),
        "select filter": lambda: (
            ["select", "filter", whole("select score"), "--budget", "50%", "--out", "{out}"],
            "manifest.json",
            "vfl.select.subset.write",
        ),
        "merge": lambda: (
            ["merge", f"{whole('train')}/adapter", "--model", str(model), "--out", "{out}"],
            "config.json",
            "vfl.train.adapter.merge",
        ),
    }
    return lambda name: made[name]()


@pytest.fixture(scope="module")
def meet(command, tmp_path_factory):
    """meet(name, kills, full, others, seed) -> what the job met, and where."""

    def run(name, kills, full, others, seed):
        words, result, module = command(name)
        folder = tmp_path_factory.mktemp(name.replace(" ", "-"))
        again = [JOBS[name].again] if JOBS[name].again.startswith("--") else []
        job = {
            "start": words,
            "again": [*words, *again],
            "result": result or "nothing is written last",
            "folder": str(folder),
            "imports": [module],
            "embedded": name not in ("train", "arms", "merge", "select filter"),
            "runs": name == "arms",
            "tensors": name == "train",
            "kills": kills,
            "full": full,
            "others": others,
            "seed": seed,
        }
        (folder / "job.json").write_text(json.dumps(job))
        # What a killed process leaves in the folder for temporary files stays with its runs.
        environment = trained.environment(TMPDIR=str(folder))
        done = warm.finished([faulted.__file__, str(folder / "job.json")], environment)
        assert done.returncode == 0, done.stderr.partition("nanobind: leaked")[0][-3000:]
        return json.loads(done.stdout.splitlines()[-1]) | {"folder": folder}

    return run


@pytest.fixture(scope="module")
def met(meet):
    """met(name) -> what the job met in the default suite, done once."""
    kept = {}

    def of(name):
        if name not in kept:
            kept[name] = meet(name, JOBS[name].kills, JOBS[name].full, OTHERS["default"], seed=0)
        return kept[name]

    return of


def errors(text):
    """The paragraphs of an error; nothing but these is said of it."""
    assert "Traceback" not in text
    return [line for line in text.splitlines() if line.startswith("Error: ")]


def check_killed(rows, kills):
    killed = [row for row in rows if row["kind"] in ("write", "time", "torn")]
    assert not [row["text"] for row in killed if row["code"] not in (0, -9)], "refused to go on"
    assert sum(row["code"] == -9 for row in killed) == kills
    assert not [row["damaged"] for row in rows if row["damaged"]], "half a file under the name of a result"
    assert not [row["again"] for row in rows if row["again"]], "a finished part was made again"


def check_full(rows, places):
    full = [row for row in rows if row["kind"] == "full" and row["code"]]
    assert len(full) == places
    for row in full:
        assert row["code"] == 2, row["text"]
        (message,) = errors(row["text"])
        assert "is full" in message
        assert "ake room" in message


def check_others(rows, job, others):
    alone = [row for row in rows if "second" in row]
    assert [row["code"] for row in alone] == [0] * others, "the first ends unharmed"
    for row in alone:
        if job.shared:
            assert row["second"]["code"] == 0, row["second"]["text"]
            continue
        assert row["second"]["code"] == 2
        (message,) = errors(row["second"]["text"])
        assert f"is being written by process {row['pid']} on {os.uname().nodename}. Wait for it" in message


def check_ends(name, found):
    """Each run that came to its end, through whatever faults, is one that met none."""
    whole = found["folder"] / "whole"
    assert found["ends"]
    assert all(row["code"] in (0, 2, -9) for row in found["met"])
    assert not [row["left"] for row in found["met"] if row["code"] == 0 and row["left"]], "leftovers"
    for out in (found["folder"] / end for end in found["ends"]):
        assert names(out) == names(whole)
        SAME[name](out, whole)


def names(out):
    """How long a run took is only noted where nothing interrupted it."""
    paths = [path for path in out.rglob("*") if ".lock" not in path.name and path.name != "times.jsonl"]
    return sorted(str(path.relative_to(out)) for path in paths)


def same_bytes(*files):
    def check(out, whole):
        for name in files:
            assert (out / name).read_bytes() == (whole / name).read_bytes(), name

    return check


def same_scores(out, whole):
    first, second = (
        pa.concat_tables([pq.read_table(part) for part in sorted((folder / "parts").glob("*.parquet"))]).to_pylist()
        for folder in (out, whole)
    )
    assert first == second


def same_records(out, whole):
    same_bytes("map.json")(out, whole)
    assert pq.read_table(out / "pairs.parquet").equals(pq.read_table(whole / "pairs.parquet"))


def same_metrics(out, whole):
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (out, whole))
    assert first | {"seconds": 0} == second | {"seconds": 0}


def same_studies(out, whole):
    first, second = (json.loads((folder / "arms.json").read_text()) for folder in (out, whole))
    for content in (first, second):
        for part in (*content["runs"], *content["arms"]):
            del part["step_seconds"]
    assert first == second
    assert len(first["runs"]) == 2
    for run in first["runs"]:
        assert trained.same(*(trained.weights(folder / run["folder"]) for folder in (out, whole)))


def same_weights(out, whole):
    assert trained.same(*(load_file(folder / "model.safetensors") for folder in (out, whole)))


SAME = {
    "train": trained.check_equal,
    "select score": same_scores,
    "locate": same_records,
    "measure": same_metrics,
    "negatives": same_bytes("negatives.jsonl", "answers.jsonl", "manifest.json"),
    "evaluate": same_bytes("evaluation.json", "answers.jsonl"),
    "arms": same_studies,
    "select filter": same_bytes("data/data.json", "ids.txt", "scores.parquet"),
    "merge": same_weights,
}


@pytest.mark.parametrize("name", JOBS)
def test_faults_change_nothing(name, met):
    job, found = JOBS[name], met(name)
    check_killed(found["met"], job.kills)
    check_full(found["met"], job.full)
    check_others(found["met"], job, OTHERS["default"])
    check_ends(name, found)


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_many_kills_change_nothing(name, meet):
    job = JOBS[name]
    found = meet(name, job.slow_kills, 0, OTHERS["slow"], seed=1)
    check_killed(found["met"], job.slow_kills)
    check_others(found["met"], job, OTHERS["slow"])
    check_ends(name, found)


def test_the_numbers_that_are_promised():
    assert sum(JOBS[name].kills for name in KILLED) == 20
    assert sum(JOBS[name].slow_kills for name in KILLED) == 200
    assert sum(job.full for job in JOBS.values()) == 21
