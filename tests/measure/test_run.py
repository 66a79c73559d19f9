"""Runs on a tiny model: what is kept, what is measured again, and questions without boxes beside probe pairs."""

import json
import logging

import pytest
import tiny
from own_suite import write_own_suite

from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.measure import run as run_module
from vfl.measure.config import MeasureConfig
from vfl.measure.metrics_file import read_metrics
from vfl.measure.report.lens_view import TOP, lens_view, spread
from vfl.measure.run import folder_of, run
from vfl.metrics.logit_lens import lens_of
from vfl.metrics.measure import measure_named
from vfl.metrics.regions import token_regions
from vfl.probes.pair import read_suite


@pytest.fixture(scope="module")
def vlm(loaded):
    return loaded("qwen2_5_vl")


@pytest.fixture(scope="module")
def suite(vlm, tmp_path_factory):
    return write_own_suite(vlm, tmp_path_factory.mktemp("suite") / "probes", 2)


@pytest.fixture
def measured(monkeypatch):
    """Names of the metrics that were measured, in order."""
    names = []

    def recording(vlm, chosen, pairs, options=None):
        names.extend(chosen)
        return measure_named(vlm, chosen, pairs, options=options)

    monkeypatch.setattr(run_module, "measure_named", recording)
    return names


def test_finished_metrics_are_kept_and_new_ones_added(vlm, suite, tmp_path, measured, loaded):
    out = tmp_path / "out"

    def config(metrics, **more):
        return MeasureConfig(metrics=metrics, data=str(suite), out=out, lens_images=1, **more)

    first = run(config("cosine,lens"), vlm=vlm, progress=False)
    assert measured == ["cosine", "lens"]
    assert first.metrics["cosine"] == measure_named(vlm, ["cosine"], read_suite(suite))["cosine"]
    assert read_metrics(out) == first
    assert 'id="lens-data"' in (out / "report.html").read_text()
    with pytest.raises(InputError, match="--resume to go on"):
        run(config("cosine"), vlm=vlm, progress=False)

    measured.clear()
    (out / "metrics.json").unlink()
    more = run(config("cosine,lens,var"), vlm=vlm, resume=True, progress=False)
    assert measured == ["var"]
    assert more.metrics["cosine"] == first.metrics["cosine"]
    assert list(more.metrics) == ["cosine", "lens", "var"]

    measured.clear()
    alone = run(config("similarity"), vlm=vlm, resume=True, progress=False)
    assert measured == ["similarity"]
    assert sorted(alone.metrics) == ["cosine", "lens", "similarity", "var"], "what was there is added to"
    assert alone.metrics["cosine"] == first.metrics["cosine"]
    assert sorted(alone.settings["metrics"]) == sorted(alone.metrics)
    assert 'id="lens-data"' in (out / "report.html").read_text()

    measured.clear()
    changed = run(config("cosine", options={"cosine": {"eps": 0.5}}), vlm=vlm, resume=True, progress=False)
    assert measured == ["cosine"]
    assert changed.metrics["cosine"]["options"]["eps"] == 0.5
    assert changed.settings["options"] == {"cosine": {"eps": 0.5}}

    with pytest.raises(InputError, match=r"measured with other settings \(data: "):
        run(config("cosine", pairs=1), vlm=vlm, resume=True, progress=False)
    smaller = loaded("qwen2_5_vl", max_pixels=1024)
    with pytest.raises(InputError, match=r"other settings \(model.max_pixels: 9216 then, 1024 now\). Use the same"):
        run(config("cosine"), vlm=smaller, resume=True, progress=False)
    with pytest.raises(InputError, match=r"other settings \(letters: 'logits' then, 'text' now\)"):
        run(config("cosine", letters="text"), vlm=vlm, resume=True, progress=False)
    run(config("cosine", pairs=1), vlm=vlm, overwrite=True, progress=False)
    assert not (out / "figures" / "lens.png").exists()

    # Killed while it overwrote: parts without what they were measured on may be anybody's.
    measured.clear()
    (out / "parts" / "measured_on.json").unlink()
    assert run(config("cosine"), vlm=vlm, resume=True, progress=False).metrics["cosine"] == first.metrics["cosine"]
    assert measured == ["cosine"]


def test_questions_and_answers_are_measured_and_what_needs_pairs_is_left_out_by_name(vlm, tmp_path, monkeypatch):
    image = tiny.picture(seed=1)
    image.save(tmp_path / "a.png")
    (answer,) = sweep(vlm, vlm.ask("what is this", image), [Plan.own()], max_new_tokens=16).texts
    turns = [{"from": "human", "value": "<image>what is this"}, {"from": "gpt", "value": answer}]
    rows = [{"image": "a.png", "conversations": turns}] * 2
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    settings = {"data": str(tmp_path / "rows.json"), "options": {"drop": {"ks": [1]}}}
    config = MeasureConfig(metrics="var,drop,lens", out=tmp_path / "out", **settings)
    measured = run(config, vlm=vlm, progress=False)
    assert measured.data.kind == "questions"
    assert measured.metrics["var"]["n"] == 2
    accuracy = measured.metrics["drop"]["scalars"]["rows/accuracy"]
    assert (accuracy["value"], accuracy["n"]) == (1.0, 2), "each question is asked once, on its one image"
    assert len(measured.metrics["lens"]["without_object"]) == 2
    assert "correspondence" not in measured.metrics["lens"]["curves"]
    monkeypatch.setattr("vfl.measure.config.known_metrics", lambda: ("cosine", "visual_prompt"))
    both = run(MeasureConfig(out=tmp_path / "all", data=settings["data"]), vlm=vlm, progress=False)
    assert list(both.metrics) == ["cosine"]
    assert both.not_measured.keys() == {"visual_prompt"}
    assert "column boxes or bbox" in both.not_measured["visual_prompt"]
    named = MeasureConfig(metrics="cosine,swap,token_ablation", out=tmp_path / "swap", data=settings["data"])
    with pytest.raises(InputError, match=r"swap: it needs pairs of images.* token_ablation: it needs the object's box"):
        run(named, vlm=vlm, progress=False)
    cut = {"knockout": {"cuts": ["object to last_token"]}}
    named = MeasureConfig(metrics="injection,knockout", out=tmp_path / "cut", data=settings["data"], options=cut)
    with pytest.raises(
        InputError, match=r"injection: it needs an unrelated image.* knockout: its cuts .* column boxes"
    ):
        run(named, vlm=vlm, progress=False)
    boxed = [{**row, "bbox": [4, 4, image.width / 2, image.height / 2]} for row in rows]
    (tmp_path / "boxed.json").write_text(json.dumps(boxed))
    unnamed = MeasureConfig(metrics="cosine,token_ablation", out=tmp_path / "named", data=str(tmp_path / "boxed.json"))
    with pytest.raises(InputError, match=r"token_ablation: it needs the object's name \(the column label of a row"):
        run(unnamed, vlm=vlm, progress=False)
    assert not [*tmp_path.glob("swap/**/cosine.json"), *tmp_path.glob("named/**/cosine.json")], "before the first pass"
    assert not folder_of(unnamed).taken, "a corrected command needs no --resume"
    config = MeasureConfig(metrics="head_weight", out=tmp_path / "boxed", data=str(tmp_path / "boxed.json"))
    assert run(config, vlm=vlm, progress=False).metrics["head_weight"]["curves"]["region"]["n"] == 2
    assert "x, y, width, height in pixels" in (tmp_path / "boxed" / "report.html").read_text()


def test_with_all_what_does_not_apply_is_left_out_with_its_reason(vlm, suite, tmp_path, monkeypatch, caplog):
    def refusing(vlm, names, pairs, options=None):
        if names == ["var"]:
            raise InputError("this model has no attention")
        return measure_named(vlm, names, pairs)

    monkeypatch.setattr(run_module, "measure_named", refusing)
    monkeypatch.setattr("vfl.measure.config.known_metrics", lambda: ("var", "cosine"))
    with caplog.at_level(logging.WARNING):
        measured = run(MeasureConfig(data=str(suite), out=tmp_path / "out"), vlm=vlm, progress=False)
    assert list(measured.metrics) == ["cosine"]
    assert measured.not_measured == {"var": "this model has no attention"}
    assert "var is left out" in caplog.text
    assert "this model has no attention" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(InputError, match="var: this model has no attention"):
        run(MeasureConfig(metrics="var", data=str(suite), out=tmp_path / "b"), vlm=vlm, progress=False)


def test_the_view_holds_what_the_lens_gives(vlm, suite):
    pairs = read_suite(suite)
    (view,) = lens_view(vlm, pairs, 1)
    encoded = vlm.ask(pairs[0].question, pairs[0].path("image"))
    probabilities, ids = lens_of(vlm, encoded, k=TOP)
    states, count = ids.shape[:2]
    assert (view["states"], len(view["regions"])) == (states, count)
    assert len(view["top"]) == len(view["share"]) == states * count * TOP
    flat = (3 * count + 2) * TOP
    assert view["tokens"][view["top"][flat]].replace("␣", " ") == vlm.tokenizer.decode([int(ids[3, 2, 0])])
    assert view["share"][flat] == round(1000 * float(probabilities[3, 2, 0]))
    assert view["regions"][2] == pytest.approx(token_regions(vlm, encoded)[2].tolist(), abs=0.01)
    assert view["size"] == list(pairs[0].size)
    json.dumps(view, allow_nan=False)


def test_pictures_are_spread_over_functions(vlm, suite):
    first, second = read_suite(suite)
    pairs = [first, first.model_copy(update={"id": "x"}), second.model_copy(update={"function": "other"})]
    assert [pair.id for pair in spread(pairs, 2)] == [first.id, second.id]
    assert len(spread(pairs, 9)) == 3


WRONG = {
    "mask": [{"ks": [99]}, {"ways": "some"}],
    "late_entry": [{"ks": [99]}],
    "drop": [{"ks": [99]}],
    "injection": [{"ns": [99]}, {"unrelated": "none"}],
    "similarity": [{"below": 99}, {"ways": "some"}],
    "knockout": [{"cuts": ["a to b"]}, {"windows": {"early": [0, 99]}}, {"sliding": 99}],
    "head_masking": [{"ks": [999]}, {"mode": "half"}, {"stages": ["first"]}, {"draws": 0}],
    "persistence": [{"first": "second"}],
    "var": [{"layers": [0, 99]}],
    "concentration": [{"base": "ten"}],
    "head_score": [{"base": "ten"}, {"eps": 0.0}],
    "recommended": [{"small": 1.5}],
    "visual_prompt": [{"width": 0.7}, {"colour": "loud"}],
    "token_ablation": [{"evaluations": ["all"]}, {"random_shares": [1.5]}, {"gradient_steps": 0}],
    "functional": [{"ridge": 0.0}, {"small": 2.0}],
    "informational": [{"radius": 3.0}],
}


@pytest.mark.parametrize("metrics", ["cosine,{}", "all"])
@pytest.mark.parametrize(("name", "options"), [(name, one) for name, some in WRONG.items() for one in some])
def test_values_that_a_metric_cannot_be_measured_with_are_refused_before_any_pass(
    vlm, suite, tmp_path, monkeypatch, name, options, metrics
):
    """Also of metrics that come last, hours later."""
    monkeypatch.setattr("vfl.measure.run.measure_named", lambda *_, **__: pytest.fail("measured"))
    config = MeasureConfig(metrics=metrics.format(name), data=str(suite), out=tmp_path / "out", options={name: options})
    with pytest.raises(InputError, match=f"{name}: .*Nothing was measured"):
        run(config, vlm=vlm, progress=False)
    assert not folder_of(config).taken, "a corrected command needs no --resume"
