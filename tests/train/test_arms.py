"""Studies: which runs there are, where they run, and what is said of finished ones."""

import json
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
import yaml
from preflights import HOSTILE, preflight
from report_pages import DRAWING, column, figures, scripts, sheets
from rich.console import Console

from vfl.errors import InputError
from vfl.evaluate.answers import Answered
from vfl.evaluate.result import Evaluation, write_answers
from vfl.evaluate.summary import summarise as accuracies
from vfl.functionmap import ModelId
from vfl.train.arms.answers import is_validation
from vfl.train.arms.axes import STANDARD
from vfl.train.arms.devices import places, visible_devices
from vfl.train.arms.estimate import estimate
from vfl.train.arms.grids import markdown, show
from vfl.train.arms.pareto import front
from vfl.train.arms.plan import plan_study, write_recipes
from vfl.train.arms.run import TIMES, holding, run_all, spread
from vfl.train.arms.summary import summarise
from vfl.train.arms.table import write_results
from vfl.train.callback.step_time import STEP_SECONDS
from vfl.train.recipe import read_recipe

ITEMS = tuple(f"test/{n}" for n in range(40))
OLD = tuple(f"counting/{n}" for n in range(10))


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    content = {
        "out": str(tmp_path / "single"),
        "data": {"train": str(tmp_path / "train.jsonl"), "replay": {"probes": "micro"}},
        "layers": "3,4",
        "trainer": {"max_steps": 10, "learning_rate": 1e-3},
        "evaluation": {"probes": "micro", "pairs": 2, "data": {"test": {"path": "test.jsonl"}}},
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def plan(recipe, tmp_path):
    """A study of the recipe with these settings over it."""

    def planned(*overrides, names=()):
        return plan_study(recipe, overrides, tmp_path / "arms", names)

    return planned


def finish(run, after: Mapping[str, bool], *, seconds=1.0, steps=10, before=True):
    """What a finished run leaves; it can count before, and read nothing."""
    run.folder.mkdir(parents=True)
    answers = [Answered(name, name.partition("/")[0], "", right, "", "") for name, right in after.items()]
    Evaluation(model=ModelId(id="m", family="f", num_layers=10), groups=accuracies(answers)).save(run.folder, answers)
    if before:
        (run.folder / "answers").mkdir()
        first = [replace(answer, correct=answer.group == "counting") for answer in answers]
        write_answers(run.folder / "answers" / "step-000000.jsonl", first)
    flight = preflight()
    launch = flight.launch.model_copy(update={"total_steps": steps})
    flight.model_copy(update={"launch": launch}).save(run.folder / "preflight.json")
    line = {"step": steps, "epoch": 1.0, "kind": "train", STEP_SECONDS: seconds}
    (run.folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (run.folder / "report.html").touch()


def right(share, seed=0, items=ITEMS):
    drawn = np.random.default_rng(seed).random(len(items)) < share
    return dict(zip(items, drawn.tolist(), strict=True))


def test_without_a_study_the_functions_layers_are_compared_with_all_others_and_random_ones(plan):
    study = plan("lora.r=4", "study.seeds=2")
    assert [(run.arm, run.seed) for run in study.runs] == [(arm, seed) for seed in (0, 1) for arm in STANDARD]
    assert len({run.folder for run in study.runs}) == 8
    assert not any(run.recipe.exists() or run.finished for run in study.runs)
    write_recipes(study)
    common = []
    for run in study.runs:
        read = read_recipe(run.recipe)
        assert (read.layers.arm, read.seed, read.lora, read.out) == (run.arm, run.seed, {"r": 4}, run.folder)
        assert run.arm == "full" or read.layers.seed == run.seed
        common.append(read.model_dump(mode="json", exclude={"layers", "seed", "out"}))
    assert all(rest == common[0] for rest in common)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("method=kto", "reads the loss of all answers, and kto's rows hold bad ones"),
        ("method=grpo", "reads the loss of the rows' own answers, and grpo takes none of them"),
        ("fsdp=true", None),
        ("data.streaming=true", None),
    ],
)
def test_arms_of_any_method_are_planned_and_rules_that_it_has_no_loss_for_are_refused(plan, changed, said):
    study = plan("data.replay=null", changed)
    assert {run.arm for run in study.runs} == set(STANDARD)
    write_recipes(study)
    key, _, value = changed.rpartition(".")[2].partition("=")
    for run in study.runs:
        read = read_recipe(run.recipe)
        assert str(getattr(read.data if "data." in changed else read, key)).lower() == value
    if said is None:
        assert plan("data.replay=null", changed, names=("gradient",)).runs
    else:
        with pytest.raises(InputError, match=f"arm 'gradient': .*{said}"):
            plan("data.replay=null", changed, names=("gradient",))


def test_axes_make_a_product_whose_arms_say_what_differs(plan):
    study = plan(
        "study={layers: {full: , three: {rule: uniform, count: 3}, own: {seed: 5}, low: 0-2}, replay: [off, on], "
        "modules: 'all,attention', learning_rates: '1e-3,5e-3', seeds: 1}"
    )
    assert len(study.arms) == 4 * 2 * 2
    assert len(study.runs) == 2 * len(study.arms)
    arms = {arm.name: arm for arm in study.arms}
    both = read_recipe(arms["three, attention, replay"].values)
    assert (both.layers.rule, both.layers.count, both.layers.modules) == ("uniform", 3, "attention")
    assert both.data.replay is not None
    plain = read_recipe(arms["own"].values)
    assert (plain.layers.layers, plain.layers.modules, plain.data.replay) == ((3, 4), "all", None)
    assert read_recipe(arms["low, replay"].values).layers.layers == (0, 1, 2)
    assert arms["low, replay"].full == "full, replay"
    assert arms["full"].full is None
    # The recipe's own rate is no part of the name: adding rates keeps what was run.
    assert [run.folder.name for run in study.runs[:2]] == ["full-0", "full-lr0.005-0"]


def test_rules_by_name_take_as_many_layers_as_the_recipe(plan):
    arms = {arm.name: read_recipe(arm.values).layers for arm in plan(names=["gradient", "auto", "random"]).arms}
    assert (arms["gradient"].rule, arms["gradient"].count) == ("gradient", 2)
    assert (arms["auto"].rule, arms["random"].arm) == ("auto", "random")
    (half,) = plan("layers=full", names=["uniform"]).arms
    assert read_recipe(half.values).layers.number(10) == 5


def test_a_list_of_arms_in_place_of_axes(plan):
    listed = (
        "study.arms={plain: {}, thin: {layers: full, replay: off, set: {lora.r: 2, protect: {functions: ocr, map: m}}}}"
    )
    study = plan(listed)
    assert [arm.name for arm in study.arms] == ["plain", "thin"]
    thin = read_recipe(study.arms[1].values)
    assert (thin.layers.arm, thin.data.replay, thin.lora["r"], thin.protect.functions) == ("full", None, 2, ("ocr",))
    assert [arm.name for arm in plan(listed, names=["plain"]).arms] == ["plain"]


@pytest.mark.parametrize(
    ("overrides", "names", "said"),
    [
        (["evaluation={}"], (), "evaluates nothing"),
        ([], ("best",), "no arm best; choose from function"),
        (["study.arms={a: {}}"], ("b",), "study.arms has a"),
        (["layers=full"], (), "'function' stands on the recipe's own set"),
        (["study.seeds=0"], (), "greater than or equal to 1"),
        (["study={arms: {a: {}}, modules: mlp}"], (), "keep one of the two"),
        (["study.learning_rates=1e-3,0.001"], (), "a value twice"),
        (["study.learning_rates=-1"], (), "greater than 0"),
        (["study.replay=on", "data.replay=null"], (), "data.replay"),
        (["study.replay=on,off", "trainer={}"], (), "equally many steps. Say how many: trainer.max_steps"),
        (["evaluation.patience=1", "evaluation.best=test", "evaluation.every=1"], (), "patience"),
        (["evaluation.best=test", "evaluation.every=1"], (), "answers that judge it"),
        (["study.arms={a: {set: {trainer.max_steps: 5}}}"], (), "can't set trainer.max_steps: arms take"),
        (["study.arms={a: {set: {trainer: {}}}}"], (), "can't set trainer"),
        (["study.arms={a: {set: {lora_r: 5}}}"], (), "unknown key 'lora_r'"),
        (["study.arms={a: {layers: 3-1}}"], (), "arm 'a'"),
        (["study.layers={a: {list: 1, modules: mlp}}", "study.modules=attention"], (), "modules twice"),
        (["study.arms={a b: {}, a-b: {}}"], (), "share the folder a-b-0"),
        (["study.new=tset"], (), "'tset', which is not measured; measured are test, recognition"),
        (["study.learning_rates=1,2", "evaluation.data={}"], (), "study.new"),
    ],
)
def test_what_can_not_be_compared_is_refused(plan, tmp_path, overrides, names, said):
    with pytest.raises(InputError, match=said):
        plan(*overrides, names=names)
    assert not (tmp_path / "arms").exists()


def test_a_run_with_other_settings_is_refused_and_a_study_may_grow(plan):
    study = plan("study.seeds=1")
    write_recipes(study)
    study.runs[0].folder.mkdir()
    grown = plan("study.seeds=2", "study.learning_rates=1e-3,1e-2")
    assert {run.folder for run in study.runs} < {run.folder for run in grown.runs}
    with pytest.raises(InputError, match=r"other settings: function-0 has lora.r: None then, 2 now"):
        plan("lora.r=2")


@pytest.mark.parametrize(
    ("devices", "jobs", "launched", "expected"),
    [
        ([], 3, False, [None, None, None]),
        (["0", "1", "2"], 2, False, ["0", "1"]),
        (["4", "GPU-a"], 3, False, ["4", "GPU-a", "4"]),
        (["0", "1", "2", "3"], 2, True, ["0,1", "2,3"]),
        (["0", "1", "2", "3"], 1, True, ["0,1,2,3"]),
        (["0", "1", "2", "3", "4"], 2, True, ["0,1", "2,3"]),
        (["0"], 2, True, ["0", "0"]),
    ],
)
def test_gpus_of_each_run_at_a_time(devices, jobs, launched, expected):
    assert places(devices, jobs, spread=launched) == expected


@pytest.mark.parametrize(("named", "seen"), [("2, GPU-a", ["2", "GPU-a"]), ("", []), ("-1", []), ("1,-1,2", ["1"])])
def test_gpus_are_those_that_the_environment_names(monkeypatch, named, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_devices() == seen


def test_no_two_runs_share_a_gpu_at_a_time_and_what_is_finished_is_not_run(plan):
    study = plan("study.seeds=2")
    finish(study.runs[3], right(1))
    lock, busy, ran = threading.Lock(), set(), []
    both = threading.Barrier(2, timeout=20)

    def start(run, environment):
        gpu = environment["CUDA_VISIBLE_DEVICES"]
        with lock:
            assert gpu not in busy
            busy.add(gpu)
            ran.append((run.folder, gpu))
            meet = len(ran) <= 2
        if meet:  # the first two run at the same time
            both.wait()
        with lock:
            busy.remove(gpu)
        return run.seed

    failed = spread(study, ["0", "1"], start, progress=False)
    assert len(ran) == 7
    assert {gpu for _, gpu in ran[:2]} == {"0", "1"}
    assert study.runs[3].folder not in {folder for folder, _ in ran}
    assert {run.seed for run in failed} == {1}
    assert len(failed) == 4


def test_runs_are_processes_whose_end_is_noted_and_a_failed_one_is_named(plan, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    script = tmp_path / "stub.py"
    script.write_text(
        "import os, pathlib, sys, yaml\n"
        "out = pathlib.Path(yaml.safe_load(open(sys.argv[3]))['out'])\n"
        "print(sys.argv[1:3], sys.argv[4:], os.environ['CUDA_VISIBLE_DEVICES'])\n"
        "if out.name == 'full-0': sys.exit('Error: the disk is full')\n"
        "(out / 'report.html').touch()\n"
    )
    study = plan("study.seeds=1", names=["function", "full"])
    write_recipes(study)
    with pytest.raises(
        InputError, match=r"1 of 2 runs failed, first full, learning rate 0.001, seed 0: Error: the disk"
    ):
        run_all(study, jobs=2, launcher=[sys.executable, str(script)], progress=False)
    log = (study.runs[0].folder / "log.txt").read_text()
    assert log == "['--module', 'vfl.train.launch'] ['--overwrite'] 5\n"
    assert [run.finished for run in study.runs] == [True, False]
    assert [json.loads(line)["arm"] for line in (study.out / TIMES).read_text().splitlines()] == ["function"]


def test_what_is_left_is_estimated_from_what_was_run(plan):
    study = plan("study.seeds=3", names=["function", "full"])
    assert estimate(study).seconds is None
    finish(study.runs[0], right(1))
    (study.out / TIMES).write_text(
        '{"run": "a", "arm": "function", "seconds": 10}\n{"run": "b", "arm": "function", "seconds": 20}\n{"run": "cut'
    )
    # Two runs of `function` are left at 15 seconds, three of `full` at the mean of all.
    assert estimate(study, jobs=2).seconds == pytest.approx(5 * 15 / 2)


VALIDATION = tuple(name for name in ITEMS if is_validation(name, 0.3))
TEST = tuple(name for name in ITEMS if name not in VALIDATION)


def test_the_validation_part_chooses_the_rate_and_the_test_part_does_not(plan):
    assert 5 < len(VALIDATION) < 20
    study = plan("study.learning_rates=1e-3,1e-2", "study.seeds=2", names=["function", "full"])
    for run in study.runs:
        # The low rate is better on validation for `function`, the high one on test; `full` has a tie.
        on_validation = run.rate == 1e-3 or run.arm == "full"
        after = right(float(on_validation), items=VALIDATION) | right(float(run.rate == 1e-2), items=TEST)
        finish(run, after | right(0.8, items=OLD))
    result = summarise(study)
    chosen = {arm.arm: arm.rate for arm in result.arms}
    assert chosen == {"function": 1e-3, "full": 1e-3}, "of equals the lower rate"
    assert result.validation == len(VALIDATION)
    assert set(result.tested["test"]) == set(TEST)
    assert result.arms[0].new.value == 0, "the better test result was not looked at"
    text = markdown(result)
    assert f"chosen by {len(VALIDATION)} validation items" in " ".join(text.split())
    assert f"new (n {len(TEST)})" in text
    assert f"validation (n {len(VALIDATION)})" in text


def test_a_single_seed_and_two_items_are_not_certain(plan):
    study = plan("study.seeds=1", names=["function", "full"])
    for run in study.runs:
        finish(run, {"test/0": True, "test/1": True, "counting/0": True}, before=run.arm == "full")
    result = summarise(study)
    function, full = result.arms
    assert function.new.value == 1.0
    assert function.new.low < 0.4
    assert function.groups["test"].against_full.low < -0.4
    assert (function.forgotten, function.groups["test"].before) == (None, None)
    assert full.forgotten.value == 0
    assert full.forgotten.high > 0.5
    text = markdown(result)
    assert "100.0 (34–100)" in text
    assert "over items alone" in text


def test_tables_fit_80_columns_and_everything_is_in_the_json(plan):
    names = ["function", f"gradient, attention, {HOSTILE}", "full"]
    listed = {"arms": {name: {"layers": "full"} for name in names}, "seeds": 3}
    study = plan("study=" + json.dumps(listed))
    assert summarise(study) is None
    for run in study.runs[:-1]:
        share = 0.2 + 0.1 * run.seed + 0.3 * (run.arm == "full")
        finish(run, right(share, run.seed) | right(0.7, 9 - run.seed, OLD), seconds=0.5 + (run.arm == "full"))
    result = summarise(study)
    assert result.unfinished == {"full": 1}
    assert [len(arm.seeds) for arm in result.arms] == [3, 3, 2]
    for arm in result.arms:
        for rate in (arm.new, arm.forgotten):
            assert rate.low < rate.value < rate.high
    screen = StringIO()
    show(result, Console(file=screen, width=80))
    shown = screen.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert "NOT FINISHED, runs left: full (1)" in shown
    _, page = write_results(result, study.out)
    content = json.loads((study.out / "arms.json").read_text())
    assert content["schema"] == 2
    assert [arm["arm"] for arm in content["arms"]] == names
    assert len(content["runs"]) == 8
    assert content["runs"][0]["right"]["test"] == right(0.2, 0)
    assert content["arms"][2]["step_seconds"] == 1.5
    html = page.read_text()
    assert HOSTILE not in html
    assert html.count("<svg") == 5
    assert scripts(html) == [DRAWING]
    found = sheets(html)
    assert figures(html) == (len(found), 0) == (5, 0)
    points = found["new-skill-right-forgotten-points"]
    assert [row[0] for row in points[1:]] == names
    assert column(points, "new skill, % right") == [100 * arm.new.value for arm in result.arms]
    assert column(points, "forgotten, points high") == [100 * arm.forgotten.high for arm in result.arms]
    assert "forgotten, points" in html


def test_runs_of_other_lengths_or_items_are_not_compared(plan):
    study = plan("study.seeds=1", names=["function", "full", "random"])
    finish(study.runs[0], right(0.5))
    finish(study.runs[1], right(0.5), steps=11)
    with pytest.raises(InputError, match=r"full.* took 11 steps of 16 rows, function.* took 10"):
        summarise(study)
    (study.runs[1].folder / "report.html").unlink()
    finish(study.runs[2], right(0.5, items=ITEMS[1:]))
    with pytest.raises(InputError, match="not asked the same items"):
        summarise(study)


def test_the_front_is_what_none_beats():
    assert front([(1, 1), (2, 2), (1, 2), (3, 5), (3, 4), (2, 2)]) == [0, 1, 5, 4]
    points = [tuple(point) for point in np.random.default_rng(0).integers(0, 9, (60, 2)).tolist()]
    for place, (gain, cost) in enumerate(points):
        beaten = any(g >= gain and c <= cost and (g > gain or c < cost) for g, c in points)
        assert (place in front(points)) == (not beaten)


def test_the_lock_of_a_run_that_was_killed_at_its_end_goes(plan):
    """Its report is there, so it is not started again, and nobody else would take its lock over."""
    study = plan(names=["auto"])
    (run, *_) = study.runs
    run.folder.mkdir(parents=True)
    (run.folder / "report.html").write_text("")
    (run.folder / ".lock").write_text(f"{2**31 - 1}\n{socket.gethostname()}\n")
    with holding(study):
        assert not (run.folder / ".lock").exists()
