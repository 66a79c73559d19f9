"""A whole localisation on a tiny model: results, interruption, resuming, refusal."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
import tiny
from own_suite import write_own_suite

import vfl
from vfl.engine.image_cache import prefill
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.functionmap import FunctionMap
from vfl.locate import sweeping
from vfl.probes.asking import MAX_NEW_TOKENS, question_of
from vfl.probes.pair import read_suite

NUM_PAIRS = 12
QUIET = {"progress": False, "part_pairs": 3}


@pytest.fixture(scope="module")
def vlm(tiny_folder):
    return vfl.load(tiny_folder("qwen2_5_vl"))


@pytest.fixture(scope="module")
def suite(vlm, tmp_path_factory):
    return write_own_suite(vlm, tmp_path_factory.mktemp("suite") / "probes", NUM_PAIRS)


@pytest.fixture(scope="module")
def finished(vlm, suite, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    fmap = vfl.locate(vlm, out=out, probes=str(suite), **QUIET)
    return out, fmap


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
    texts = sweep(vlm, target, plans, max_new_tokens=MAX_NEW_TOKENS[pair.match]).texts
    rows = [row for row in records if row["pair_id"] == pair.id and row["swap"] == "source"]
    singles = {row["first"]: row for row in rows if row["first"] == row["last"]}
    assert [singles[layer]["answer"] for layer in range(vlm.num_layers)] == texts[1:]
    assert all(row["changed"] == pair.changed(row["answer"], texts[0]) for row in singles.values())
    assert {row["baseline_answer"] for row in rows} == {texts[0]}


def test_a_control_that_is_the_target_itself_changes_nothing(finished):
    _, fmap = finished
    assert fmap.functions["naming"].control == [0.0] * fmap.model.num_layers


def test_an_interrupted_run_leaves_no_map_and_resumes_to_the_same(finished, vlm, suite, tmp_path, monkeypatch):
    done, real = [], sweeping.sweep_pair

    def interrupted(asker, pair, blocks, **kwargs):
        if len(done) == 7:
            raise KeyboardInterrupt
        done.append(pair.id)
        return real(asker, pair, blocks, **kwargs)

    monkeypatch.setattr(sweeping, "sweep_pair", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vfl.locate(vlm, out=tmp_path, probes=str(suite), **QUIET)
    assert not (tmp_path / "map.json").exists()
    assert not (tmp_path / "pairs.parquet").exists()
    with pytest.raises(InputError, match=r"interrupted run.*--resume"):
        vfl.locate(vlm, out=tmp_path, probes=str(suite), **QUIET)
    with pytest.raises(InputError, match=r"reading: 'text' then, 'answer' now"):
        vfl.locate(vlm, out=tmp_path, probes=str(suite), resume=True, reading="answer", **QUIET)

    asked = []
    monkeypatch.setattr(
        sweeping,
        "sweep_pair",
        lambda asker, pair, blocks, **kw: (asked.append((pair.id, tuple(blocks))), real(asker, pair, blocks, **kw))[1],
    )
    fmap = vfl.locate(vlm, out=tmp_path, probes=str(suite), resume=True, **QUIET)
    saved = done[:6]  # parts are saved after every third pair
    first_stage = [pair for pair, blocks in asked if len(blocks) == vlm.num_layers]
    assert set(first_stage).isdisjoint(saved), "what was saved is not asked again"
    assert comparable(fmap) == comparable(finished[1])
    assert pq.read_table(tmp_path / "pairs.parquet").equals(pq.read_table(finished[0] / "pairs.parquet"))


def test_another_runs_results_are_not_overwritten_unless_asked(finished, vlm, suite, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    with pytest.raises(InputError, match=r"holds a function map.*--overwrite"):
        vfl.locate(vlm, out=out, probes=str(suite), **QUIET)
    with pytest.raises(InputError, match="nothing to resume"):
        vfl.locate(vlm, out=out, probes=str(suite), resume=True, **QUIET)
    assert FunctionMap.load(out / "map.json") == finished[1]
    fmap = vfl.locate(vlm, out=out, probes=str(suite), overwrite=True, mode="single", **QUIET)
    assert fmap.settings["mode"] == "single"
    blocks = {(row["first"], row["last"]) for row in pq.read_table(out / "pairs.parquet").to_pylist()}
    assert all(first == last for first, last in blocks)


def test_where_the_suite_lies_does_not_matter(finished, vlm, suite, tmp_path):
    elsewhere = tmp_path / "moved" / "suite"
    shutil.copytree(suite, elsewhere)
    fmap = vfl.locate(vlm, out=tmp_path / "out", probes=str(elsewhere), **QUIET)
    assert comparable(fmap) == comparable(finished[1])


def test_own_layers_override_the_rule(vlm, suite, tmp_path):
    fmap = vfl.locate(vlm, out=tmp_path, probes=str(suite), layers={"naming": [1, 3]}, mode="single", **QUIET)
    entry = fmap.functions["naming"]
    assert (entry.layers, entry.chosen_by) == ([1, 3], "user")


def test_no_pair_answered_correctly_is_an_error_and_leaves_no_map(vlm, suite, tmp_path):
    wrong = tmp_path / "wrong"
    shutil.copytree(suite, wrong)
    lines = [json.loads(line) for line in (wrong / "probes.jsonl").read_text().splitlines()]
    for line in lines:
        line["answer"], line["source_answer"] = "never this", "nor that"
    (wrong / "probes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match="No pair was answered correctly"):
        vfl.locate(vlm, out=tmp_path / "out", probes=str(wrong), **QUIET)
    assert not (tmp_path / "out" / "map.json").exists()


def test_a_function_without_a_kept_pair_is_left_out_and_named(finished, vlm, suite, tmp_path, caplog):
    both = tmp_path / "both"
    shutil.copytree(suite, both)
    lines = [json.loads(line) for line in (both / "probes.jsonl").read_text().splitlines()]
    wrong = [
        line | {"id": f"wrong-{i}", "function": "impossible", "answer": "never this", "source_answer": "nor that"}
        for i, line in enumerate(lines[:2])
    ]
    (both / "probes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines + wrong))
    fmap = vfl.locate(vlm, out=tmp_path / "out", probes=str(both), mode="single", **QUIET)
    assert list(fmap.functions) == ["naming"]
    assert fmap.settings["unanswered"] == ["impossible"]
    assert "impossible" in caplog.text
    assert "impossible" in (tmp_path / "out" / "report.html").read_text()


def test_functions_that_a_suite_lacks_are_refused(vlm, suite, tmp_path):
    with pytest.raises(InputError, match="no pairs for counting; it has naming"):
        vfl.locate(vlm, out=tmp_path, probes=str(suite), functions=["counting"], **QUIET)


def test_a_pair_whose_vision_tokens_differ_is_named(vlm, tmp_path):
    """Equal pixel sizes can still give unequal tokens where a processor looks at more than the size."""
    from vfl.locate.pairs import sweep_pair
    from vfl.probes.asking import Asker

    for name, size in (("a.png", (64, 48)), ("b.png", (96, 48))):
        tiny.picture(seed=1, size=size).save(tmp_path / name)
    line = {"id": "odd", "function": "naming", "image": "a.png", "source_image": "a.png", "question": "what is it"}
    line |= {"answer": "a cat", "source_answer": "a dog", "match": "text"}
    (tmp_path / "probes.jsonl").write_text(json.dumps(line) + "\n")
    (pair,) = read_suite(tmp_path)
    pair = pair.model_copy(update={"source_image": "b.png"})
    with pytest.raises(InputError, match=r"Pair 'odd'.*same size in pixels"):
        sweep_pair(Asker(vlm), pair, [(0, 0)])
