"""A whole localisation on a tiny model: results, interruption, resuming, refusal."""

import json
import logging.handlers
import shutil

import pyarrow.parquet as pq
import pytest
import tiny
import torch
import trained
import warm
from own_suite import write_own_suite

import vfl
from vfl.engine.image_cache import prefill
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.functionmap import FunctionMap
from vfl.locate import launch, sweeping
from vfl.locate.config import LocateConfig
from vfl.locate.pairs import sweep_pair
from vfl.probes.asking import Asker, question_of
from vfl.probes.pair import read_suite, suite_sha256

NUM_PAIRS = 6
# A random model goes on for as long as it may: a few tokens show what it answers.
ANSWER = 6
QUIET = {"progress": False, "part_pairs": 2, "max_new_tokens": ANSWER}


@pytest.fixture(scope="module")
def vlm(loaded):
    return loaded("qwen2_5_vl")


@pytest.fixture(scope="module")
def suite(vlm, tmp_path_factory):
    return write_own_suite(vlm, tmp_path_factory.mktemp("suite") / "probes", NUM_PAIRS, max_new_tokens=ANSWER)


@pytest.fixture(scope="module")
def finished(vlm, suite, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    fmap = vfl.locate(vlm, out=out, probes=str(suite), **QUIET)
    return out, fmap


def with_changed_lines(suite, folder, change):
    """A copy of a suite whose lines are what `change` makes of them."""
    shutil.copytree(suite, folder)
    lines = [json.loads(line) for line in (folder / "probes.jsonl").read_text().splitlines()]
    (folder / "probes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in change(lines)))
    return folder


UNANSWERABLE = {"answer": "never this", "source_answer": "nor that"}


@pytest.fixture(scope="module")
def again(finished, vlm, suite, tmp_path_factory):
    """A run of single layers over another's results, on the suite in another place with a function that can't be kept.

    Whole runs take most of this folder's time: this one serves all that they would show one by one.
    """
    folder = tmp_path_factory.mktemp("again")
    shutil.copytree(finished[0], folder / "out")

    def with_impossible(lines):
        more = [
            line | UNANSWERABLE | {"id": f"wrong-{n}", "function": "impossible"} for n, line in enumerate(lines[:2])
        ]
        return [*lines, *more]

    elsewhere = with_changed_lines(suite, folder / "moved" / "suite", with_impossible)
    log = logging.handlers.BufferingHandler(1000)
    logging.getLogger("vfl").addHandler(log)
    try:
        fmap = vfl.locate(
            vlm,
            out=folder / "out",
            probes=str(elsewhere),
            overwrite=True,
            mode="single",
            layers={"naming": [1, 3]},
            **QUIET,
        )
    finally:
        logging.getLogger("vfl").removeHandler(log)
    return folder / "out", fmap, [record.getMessage() for record in log.buffer]


def comparable(fmap):
    return fmap.model_dump(exclude={"settings"})


def test_a_run_writes_map_report_curves_and_records(finished, vlm):
    out, fmap = finished
    assert {path.name for path in out.iterdir()} == {
        *("map.json", "report.html", "curves.png", "pairs.parquet", "settings.yaml"),
    }
    assert FunctionMap.load(out / "map.json") == fmap
    entry = fmap.functions["naming"]
    assert entry.kept == entry.pairs == NUM_PAIRS
    assert entry.accuracy == 1.0
    assert len(entry.changed) == fmap.model.num_layers == vlm.num_layers
    assert fmap.model.weights_sha256 is not None


def test_records_hold_what_the_sweep_answers(finished, vlm, suite):
    out, _ = finished
    records = pq.read_table(out / "pairs.parquet").to_pylist()
    pair = read_suite(suite)[0]
    target, source = (vlm.ask(question_of(vlm, pair), pair.path(which)) for which in ("image", "source_image"))
    plans = [Plan.own(), *(Plan.swap([layer], prefill(vlm, source)) for layer in range(vlm.num_layers))]
    texts = sweep(vlm, target, plans, max_new_tokens=ANSWER).texts
    rows = [row for row in records if row["pair_id"] == pair.id and row["swap"] == "source"]
    singles = {row["first"]: row for row in rows if row["first"] == row["last"]}
    assert [singles[layer]["answer"] for layer in range(vlm.num_layers)] == texts[1:]
    assert all(row["changed"] == pair.changed(row["answer"], texts[0]) for row in singles.values())
    assert {row["baseline_answer"] for row in rows} == {texts[0]}


def test_a_visit_to_a_pair_runs_the_model_once_over_its_images(vlm, suite):
    pair, passes = read_suite(suite)[0], []
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: passes.append(name))
        for name, module in (("images", vlm.parts.body), ("decoder", vlm.parts.decoder))
    ]
    blocks = [(layer, layer) for layer in range(vlm.num_layers)]
    try:
        rows = sweep_pair(Asker(vlm), pair, blocks, max_new_tokens=ANSWER)
    finally:
        for handle in handles:
            handle.remove()
    assert len(rows) == 1 + 2 * len(blocks)
    assert passes.count("images") == 1, "target, source and control together"
    assert passes.count("decoder") <= 3, "the images, the question, and where answers stand"


def test_a_pair_that_is_not_kept_is_swept_only_when_asked(vlm, suite):
    pair = read_suite(suite)[0].model_copy(update={"source_answer": "nothing of the kind"})
    blocks = [(layer, layer) for layer in range(vlm.num_layers)]
    (row,) = sweep_pair(Asker(vlm), pair, blocks, max_new_tokens=ANSWER)
    assert (row["swap"], row["kept"], row["target_correct"]) == ("none", False, True)
    swept = sweep_pair(Asker(vlm), pair, blocks, max_new_tokens=ANSWER, unfiltered=True)
    assert len(swept) == 1 + 2 * len(blocks)
    assert {name: swept[0][name] for name in row if not name.startswith("logprob")} == {
        name: value for name, value in row.items() if not name.startswith("logprob")
    }
    assert swept[0]["logprob_answer"] == pytest.approx(row["logprob_answer"], rel=1e-5)


def test_a_control_that_is_the_target_itself_changes_nothing(finished):
    _, fmap = finished
    assert fmap.functions["naming"].control == [0.0] * fmap.model.num_layers


def test_an_interrupted_run_leaves_no_map_and_resumes_to_the_same(
    finished, vlm, suite, tmp_path, monkeypatch, tiny_folder, capfd, loaded
):
    done, real = [], sweeping.sweep_group

    def interrupted(asker, pairs, blocks, **kwargs):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.extend(pair.id for pair in pairs)
        return real(asker, pairs, blocks, **kwargs)

    monkeypatch.setattr(sweeping, "sweep_group", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vfl.locate(vlm, out=tmp_path, probes=str(suite), **QUIET | {"progress": True})
    assert capfd.readouterr().err.count("5 more pairs: about") == 1, "said once, after the first kept pair"
    assert not (tmp_path / "map.json").exists()
    assert not (tmp_path / "pairs.parquet").exists()
    with pytest.raises(InputError, match=r"interrupted run.*--resume"):
        vfl.locate(vlm, out=tmp_path, probes=str(suite), **QUIET)
    with pytest.raises(InputError, match=r"reading: 'text' then, 'answer' now"):
        vfl.locate(vlm, out=tmp_path, probes=str(suite), resume=True, reading="answer", **QUIET)
    smaller = loaded("qwen2_5_vl", max_pixels=1024)
    for model, settings in ((smaller, {}), (tiny_folder("qwen2_5_vl"), {"max_pixels": 1024})):
        with pytest.raises(InputError, match=r"had other settings \(max_pixels: 9216 then, 1024 now\)"):
            vfl.locate(model, out=tmp_path, probes=str(suite), resume=True, **settings, **QUIET)

    asked = []
    monkeypatch.setattr(
        sweeping,
        "sweep_group",
        lambda asker, pairs, blocks, **kw: (
            asked.extend((pair.id, tuple(blocks)) for pair in pairs),
            real(asker, pairs, blocks, **kw),
        )[1],
    )
    fmap = vfl.locate(vlm, out=tmp_path, probes=str(suite), resume=True, **QUIET)
    saved = done[:4]  # parts are saved after every second pair
    first_stage = [pair for pair, blocks in asked if len(blocks) == vlm.num_layers]
    assert set(first_stage).isdisjoint(saved), "what was saved is not asked again"
    assert comparable(fmap) == comparable(finished[1])
    assert pq.read_table(tmp_path / "pairs.parquet").equals(pq.read_table(finished[0] / "pairs.parquet"))


RANK = """
import json, os, sys, time
from pathlib import Path

import torch

from vfl.errors import InputError
from vfl.launching.ranks import leave
from vfl.locate import run, sweeping
from vfl.locate.launch import main

threads, folder, ports, arguments = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(","), sys.argv[4:]
torch.set_num_threads(int(threads))
rank, failed, real, load = os.environ["RANK"], folder / "failed", sweeping.sweep_group, run.load_from
codes, visits, loads = [], [], []


def failing(asker, pairs, blocks, **options):
    visits.extend(pair.id for pair in pairs)
    if len(visits) == 2 and rank == "1":
        failed.touch()
        raise InputError(f"Pair {pairs[0].id!r} is torn.")
    while len(visits) == 2 and not failed.exists():
        time.sleep(0.01)
    return real(asker, pairs, blocks, **options)


def load_once(config):
    loads.append(loads[0] if loads else load(config))
    return loads[-1]


run.load_from = load_once
sweeping.sweep_group = failing
for port, more in zip(ports, (["--functions", "counting"], [], ["--resume"]), strict=True):
    os.environ["MASTER_PORT"] = port
    codes.append([main([*arguments, *more]), len(loads)])
    leave()
    if visits:
        sweeping.sweep_group = real
(folder / f"rank.{rank}.json").write_text(json.dumps({"codes": codes, "visits": visits}))
"""


def test_two_ranks_end_together_and_resume_to_what_one_process_writes(finished, suite, tmp_path, tiny_folder):
    """Three runs in the same processes: a refused one, one that an error of the second rank ends, and on from it."""
    out = tmp_path / "out"
    ports = ",".join(warm.free_port() for _ in range(3))
    sets = ["--set", "part_pairs=2", f"max_new_tokens={ANSWER}"]
    arguments = [str(tiny_folder("qwen2_5_vl")), f"out={out}", "--probes", str(suite), *sets]
    done = warm.ranks(
        ["-c", RANK, str(torch.get_num_threads()), str(tmp_path), ports, *arguments], trained.environment()
    )
    assert [rank.returncode for rank in done] == [0, 0], done[0].stderr + done[1].stderr
    facts = [json.loads((tmp_path / f"rank.{rank}.json").read_text()) for rank in range(2)]
    for fact in facts:
        assert fact["codes"] == [[2, 0], [2, 1], [0, 2]], "the first before any model is loaded"
    assert {*facts[0]["visits"]}.isdisjoint(facts[1]["visits"])
    assert done[0].stderr.count("Error: ") == 2
    assert "has no pairs for counting; it has naming" in done[0].stderr
    assert f"Error: Pair '{facts[1]['visits'][1]}' is torn.\n" in done[0].stderr
    assert "Error" not in done[1].stderr
    assert done[0].stdout.count("Report: ") == 1
    assert "Report" not in done[1].stdout
    assert same_files(out, finished[0])


def same_files(folder, other):
    """Whether two folders hold the same files with the same bytes."""
    files = [{path.name: path.read_bytes() for path in of.iterdir()} for of in (folder, other)]
    assert files[0].keys() == files[1].keys()
    return [name for name in files[0] if files[0][name] != files[1][name]] == []


def test_options_of_the_launched_command_are_the_settings(tmp_path, capsys):
    words = ["model", "--pairs", "3", "seed=2", "--functions", "counting,ocr", "--layers", "counting=10-12"]
    config, how = launch.read([*words, "--unfiltered", "--out", str(tmp_path / "out"), "--resume"])
    assert how == {"resume": True, "overwrite": False}
    assert config == LocateConfig(
        model="model", pairs=3, seed=2, functions=["counting", "ocr"], layers={"counting": [10, 11, 12]},
        unfiltered=True, out=tmp_path / "out",
    )  # fmt: skip
    for wrong, said in ((["--nonsense"], "unrecognized arguments: --nonsense"), (["out=x", "seeds=3"], "seed")):
        assert launch.main(wrong) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_another_runs_results_are_not_overwritten_unless_asked(finished, again, vlm, suite, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    with pytest.raises(InputError, match=r"holds a function map.*--overwrite"):
        vfl.locate(vlm, out=out, probes=str(suite), **QUIET)
    with pytest.raises(InputError, match="nothing to resume"):
        vfl.locate(vlm, out=out, probes=str(suite), resume=True, **QUIET)
    assert FunctionMap.load(out / "map.json") == finished[1]
    assert FunctionMap.load(again[0] / "map.json") == again[1] != finished[1]


def test_single_layers_are_what_was_asked_for(again):
    out, fmap, _ = again
    assert fmap.settings["mode"] == "single"
    blocks = {(row["first"], row["last"]) for row in pq.read_table(out / "pairs.parquet").to_pylist()}
    assert all(first == last for first, last in blocks)


def test_where_the_suite_lies_does_not_matter(finished, again, suite, tmp_path):
    """The same pairs have the same answers, whatever else is asked beside them."""
    singles = [
        [row for row in pq.read_table(out / "pairs.parquet").to_pylist() if row["first"] == row["last"]]
        for out in (finished[0], again[0])
    ]
    assert singles[0] == [row for row in singles[1] if row["function"] == "naming"]
    shutil.copytree(suite, tmp_path / "moved")
    assert suite_sha256(tmp_path / "moved") == suite_sha256(suite) == finished[1].probes_sha256


def test_own_layers_override_the_rule(finished, again):
    entry = again[1].functions["naming"]
    assert (entry.layers, entry.chosen_by) == ([1, 3], "user")
    assert finished[1].functions["naming"].chosen_by != "user"


def test_a_function_without_a_kept_pair_is_left_out_and_named(again):
    out, fmap, messages = again
    assert list(fmap.functions) == ["naming"]
    assert fmap.settings["unanswered"] == ["impossible"]
    assert any("impossible" in message for message in messages)
    assert "impossible" in (out / "report.html").read_text()


def test_no_pair_answered_correctly_is_an_error_and_leaves_no_map(vlm, suite, tmp_path):
    wrong = with_changed_lines(suite, tmp_path / "wrong", lambda lines: [line | UNANSWERABLE for line in lines[:2]])
    with pytest.raises(InputError, match="No pair was answered correctly"):
        vfl.locate(vlm, out=tmp_path / "out", probes=str(wrong), **QUIET)
    assert not (tmp_path / "out" / "map.json").exists()


def test_functions_that_a_suite_lacks_are_refused(vlm, suite, tmp_path):
    with pytest.raises(InputError, match="no pairs for counting; it has naming"):
        vfl.locate(vlm, out=tmp_path, probes=str(suite), functions=["counting"], **QUIET)


def test_a_typo_leaves_no_folder_that_blocks_the_corrected_command(vlm, tmp_path):
    out = tmp_path / "out"
    generated = {"probes": "standard", "pairs": 1, "mode": "single", "size": 112, **QUIET}
    with pytest.raises(InputError, match="does not draw 'countng'"):
        vfl.locate(vlm, out=out, functions="countng", **generated)
    assert not out.exists()


def test_a_pair_whose_vision_tokens_differ_is_named(vlm, tmp_path):
    """Equal pixel sizes can still give unequal tokens where a processor looks at more than the size."""
    for name, size in (("a.png", (64, 48)), ("b.png", (96, 48))):
        tiny.picture(seed=1, size=size).save(tmp_path / name)
    line = {"id": "odd", "function": "naming", "image": "a.png", "source_image": "a.png", "question": "what is it"}
    line |= {"answer": "a cat", "source_answer": "a dog", "match": "text"}
    (tmp_path / "probes.jsonl").write_text(json.dumps(line) + "\n")
    (pair,) = read_suite(tmp_path)
    pair = pair.model_copy(update={"source_image": "b.png"})
    with pytest.raises(InputError, match=r"Pair 'odd'.*same size in pixels"):
        sweep_pair(Asker(vlm), pair, [(0, 0)])


def test_killed_behind_its_sweep_a_run_asks_no_pair_again(finished, vlm, suite, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    for name in ("map.json", "report.html"):
        (out / name).unlink()

    def asked(*_, **__):
        raise AssertionError("a pair was asked again")

    monkeypatch.setattr(sweeping, "sweep_group", asked)
    assert comparable(vfl.locate(vlm, out=out, probes=str(suite), resume=True, **QUIET)) == comparable(finished[1])
    assert same_files(out, finished[0])
