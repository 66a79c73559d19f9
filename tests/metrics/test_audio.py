"""The metrics on an audio language model: what makes sense there runs, the rest says that it does not apply."""

import json
from base64 import b64encode

import pytest
import tiny
import torch

from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.measure.config import MeasureConfig
from vfl.measure.run import run
from vfl.metrics.measure import known_metrics, measure_named
from vfl.probes import match
from vfl.probes.asking import MAX_NEW_TOKENS
from vfl.probes.pair import read_suite

pytestmark = pytest.mark.long

QUESTION = "What is in the sound? Answer with the text only."
ONLY_IMAGES = [name for name, spec in known_metrics().items() if spec.only_images]
APPLY = [name for name in known_metrics() if name not in ONLY_IMAGES]
PAIRS = 2  # one of each function


@pytest.fixture(scope="module")
def vlm(loaded):
    return loaded("qwen2_audio", dtype="float64")


@pytest.fixture(scope="module")
def measured(vlm, suite, tmp_path_factory):
    """`vfl measure --metrics all` up to its page: the folder, and what came of it."""
    out = tmp_path_factory.mktemp("measured") / "all"
    # Many heads masked in many ways show no more than a few.
    options = {"head_masking": {"ks": [1], "draws": 1, "stages": ["early"]}, "recommended": {"timing": False}}
    options = {name: values for name, values in options.items() if name in APPLY}
    everything = MeasureConfig(model=vlm.model_id, data=str(suite), options=options, out=out)
    return out, run(everything, vlm=vlm, progress=False)


@pytest.fixture(scope="module")
def suite(vlm, tmp_path_factory):
    """A folder of sound pairs, the answers are the model's own."""
    folder = tmp_path_factory.mktemp("sounds")
    answered, lines = {}, []
    for seed in range(200):
        path = tiny.write_sound(folder / f"{seed}.wav", seed)
        (answer,) = sweep(vlm, vlm.ask(QUESTION, path), [Plan.own()], max_new_tokens=MAX_NEW_TOKENS["text"]).texts
        if match.read("text", answer) is None:
            continue
        other = next((name for name, theirs in answered.items() if not match.same("text", theirs, answer)), None)
        if other is None:
            answered[path.name] = answer
            continue
        line = {"id": f"pair-{len(lines)}", "function": ("naming", "telling")[len(lines) % 2], "question": QUESTION}
        line |= {"image": path.name, "source_image": other, "answer": answer, "source_answer": answered.pop(other)}
        lines.append(json.dumps(line | {"match": "text"}) + "\n")
        if len(lines) == PAIRS:
            break
    (folder / "probes.jsonl").write_text("".join(lines))
    return folder


def test_pairs_of_sounds_are_a_suite(suite, tmp_path):
    pairs = read_suite(suite)
    assert len(pairs) == PAIRS
    assert {pair.size for pair in pairs} == {(10_240, 16_000)}
    tiny.write_sound(tmp_path / "short.wav", seconds=0.5)
    tiny.write_sound(tmp_path / "long.wav")
    line = json.loads(pairs[0].line()) | {"image": "short.wav", "source_image": "long.wav"}
    (tmp_path / "probes.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(InputError, match="must have equal"):
        read_suite(tmp_path)


@pytest.mark.parametrize("name", sorted(ONLY_IMAGES))
def test_metrics_of_pictures_say_that_they_do_not_apply(vlm, suite, name):
    with pytest.raises(InputError, match=f"{name} does not apply to Qwen2-Audio"):
        measure_named(vlm, [name], read_suite(suite))


def test_rows_with_sounds_are_questions(vlm, suite, tmp_path):
    """Files beside the rows, and sounds that the rows hold; the answers are the model's own."""
    rows = []
    for number, pair in enumerate(read_suite(suite)):
        path = pair.path("image")
        held = {"bytes": None, "path": str(path.name)}
        if number % 2:
            held = {"base64": b64encode(path.read_bytes()).decode()}
        rows.append({"audio": held, "question": pair.question, "answer": pair.answer, "label": "a sound"})
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    asked = {"data": str(tmp_path / "rows.json"), "images": suite, "match": "text"}
    config = MeasureConfig(model=vlm.model_id, metrics="var,drop", out=tmp_path / "out", **asked)
    measured = run(config, vlm=vlm, progress=False)
    assert measured.data.kind == "questions"
    assert measured.metrics["var"]["n"] == PAIRS
    assert measured.metrics["drop"]["scalars"]["rows/accuracy"]["value"] == 1
    with pytest.raises(InputError, match="hears sounds"):
        run(MeasureConfig(metrics="token_ablation", out=tmp_path / "no", **asked), vlm=vlm, progress=False)
    rows[0] |= {"audio": "absent.wav"}
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match=r"row 1: .*absent\.wav"):
        run(MeasureConfig(metrics="var", out=tmp_path / "gone", **asked), vlm=vlm, progress=False)


def test_plain_answers_are_right_and_the_masses_sum_to_one(vlm, measured):
    """The answers are the model's own, so accuracy is 1 where nothing is edited."""
    results = measured[1].metrics
    for name in ("drop", "late_entry"):
        assert results[name]["scalars"]["naming/accuracy"]["value"] == 1
        assert results[name]["curves"]["naming/accuracy"]["value"][0] == 1
    masses = torch.tensor([results["var"]["curves"][name]["value"] for name in ("vision", "text", "self")])
    torch.testing.assert_close(masses.sum(0), torch.ones(vlm.num_layers), rtol=0, atol=1e-6)


def test_measuring_all_leaves_out_by_name(vlm, suite, measured, tmp_path):
    out, metrics = measured
    assert sorted(metrics.not_measured) == sorted(ONLY_IMAGES)
    assert set(metrics.metrics) == set(APPLY)
    assert all(metric["n"] > 0 and (metric["curves"] or metric["scalars"]) for metric in metrics.metrics.values())
    assert (out / "report.html").exists()
    with pytest.raises(InputError, match="does not apply to Qwen2-Audio"):
        run(
            MeasureConfig(model=vlm.model_id, metrics=["cosine", "lens"], data=str(suite), out=tmp_path / "some"),
            vlm=vlm,
        )
