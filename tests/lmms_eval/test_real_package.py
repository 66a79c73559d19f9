"""The real lmms-eval finds the model, asks a task of its own files, and gets the answers that vfl gives.

Skipped where lmms-eval is not installed; docs/how-to/lmms-eval.md says how it is.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, entry_points, version

import pytest
import torch
from peft import LoraConfig, get_peft_model

import vfl
from vfl.engine.plan import Plan
from vfl.engine.skip.running import generate
from vfl.engine.skip.skip import Skip
from vfl.engine.sweep import sweep
from vfl.evaluate.answers import text_of
from vfl.lmms_eval.manifest import MODEL, NAME
from vfl.probes.make import make
from vfl.probes.style import MICRO_STYLE

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: {kind}
doc_to_visual: !function pictures.doc_to_visual
doc_to_text: "{{{{question}}}}"
metadata: {{version: 0}}
"""
OPEN = """
doc_to_target: "{{answer}}"
process_results: !function pictures.process_results
generation_kwargs: {max_new_tokens: 8, do_sample: false, temperature: 0}
metric_list: [{metric: right, aggregation: mean, higher_is_better: true}]
"""
CHOICE = """
doc_to_choice: choices
doc_to_target: gold
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
PICTURES = """
from PIL import Image


def doc_to_visual(doc):
    return [Image.open(doc["image"]).convert("RGB")]


def process_results(doc, results):
    return {"right": float(results[0].lower() == doc["answer"].lower())}
"""


def found_there():
    """Models of others that lmms-eval can find; skips the test where vfl's is not among them."""
    found = entry_points(group="lmms_eval.models")
    if NAME not in found.names:
        pytest.skip("the installed vfl has no entry point for lmms-eval: install this checkout")
    return found


def test_the_entry_point_is_where_lmms_eval_looks():
    """Of the installed vfl, which a checkout has to be for this."""
    found = found_there()
    assert found[NAME].value == "vfl.lmms_eval.manifest:manifest"
    assert MODEL == "vfl.lmms_eval.model.PlannedModel"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return make(tmp_path_factory.mktemp("suite") / "pairs", ["counting", "ocr"], pairs=6, seed=1, style=MICRO_STYLE)


@pytest.fixture(scope="module")
def tasks(pairs, tmp_path_factory):
    """A folder with a task of open questions and one of two choices, over the same pictures."""
    try:
        version("lmms-eval")
    except PackageNotFoundError:
        pytest.skip("lmms-eval is not installed")
    folder = tmp_path_factory.mktemp("tasks")
    rows = folder / "rows.jsonl"
    with rows.open("w") as file:
        for pair in pairs:
            choices = [pair.answer, pair.source_answer]
            row = {"image": str(pair.path("image")), "question": pair.question, "answer": pair.answer}
            file.write(json.dumps(row | {"choices": choices, "gold": 0}) + "\n")
    (folder / "pictures.py").write_text(PICTURES)
    (folder / "open.yaml").write_text(TASK.format(name="vfl_open", rows=rows, kind="generate_until") + OPEN)
    (folder / "choice.yaml").write_text(TASK.format(name="vfl_choice", rows=rows, kind="multiple_choice") + CHOICE)
    return folder


@pytest.fixture
def lmms_eval(tasks, tmp_path):
    """lmms_eval(words) -> by task, the model's answers in the order of the rows, and what was printed."""
    found_there()

    def run(words, names="vfl_open,vfl_choice"):
        out = tmp_path / "out"
        command = [sys.executable, "-m", "lmms_eval", "--model", "vfl", "--model_args", words, "--tasks", names]
        command += ["--include_path", str(tasks), "--batch_size", "4", "--log_samples", "--output_path", str(out)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        answers = {}
        for file in out.rglob("*_samples_*.jsonl"):
            samples = sorted(map(json.loads, file.read_text().splitlines()), key=lambda sample: sample["doc_id"])
            answers["open" if "vfl_open" in file.name else "choice"] = samples
        return answers, ended.stdout + ended.stderr

    return run


@pytest.mark.slow  # half a minute each: the import of lmms-eval alone takes ten seconds
@pytest.mark.parametrize("words", ["hide=5", "exit=6", "adapter"])
def test_answers_under_a_plan_are_those_of_vfl(lmms_eval, pairs, tmp_path, words):
    vlm = vfl.load()
    if words == "adapter":
        adapter = an_adapter(tmp_path / "adapter")
        answers, printed = lmms_eval(f"model=embedded,adapter={adapter}", "vfl_open")
        evaluated = vfl.evaluate(
            out=tmp_path / "evaluated",
            adapter=adapter,
            data={"own": {"path": rows_of(pairs, tmp_path), "images": pairs[0].path("image").parent}},
            max_new_tokens=8,
        )
        assert evaluated.groups["own"].n == len(pairs)
        answered = map(json.loads, (tmp_path / "evaluated" / "answers.jsonl").read_text().splitlines())
        expected = [one["answer"] for one in answered]
    else:
        answers, printed = lmms_eval(f"model=embedded,{words}")
        encoded = [vlm.ask(pair.question, pair.path("image")) for pair in pairs]
        if words == "exit=6":
            ids = [generate(vlm, one, Skip(10, 0, 6), max_new_tokens=8)[0] for one in encoded]
            expected = [text_of(vlm, one) for one in ids]
        else:
            expected = [sweep(vlm, one, [Plan.hide([5])], max_new_tokens=8).texts[0] for one in encoded]
            check_choices(vlm, answers["choice"], pairs, encoded)
    assert answers, printed[-3000:]
    assert [sample["filtered_resps"] for sample in answers["open"]] == expected
    right = [text.lower() == pair.answer.lower() for text, pair in zip(expected, pairs, strict=True)]
    assert [bool(sample["right"]) for sample in answers["open"]] == right
    assert 0 < sum(right) < len(pairs)  # the plan shows


def check_choices(vlm, samples, pairs, encoded):
    """The likelier choice is the one that the sweep finds likelier, with hidden layers."""
    for sample, pair, one in zip(samples, pairs, encoded, strict=True):
        given = [pair.answer, pair.source_answer]
        scored = sweep(vlm, one, [Plan.hide([5])], answers=given).answer_logprobs[0]
        assert [float(loss) for loss, _ in sample["filtered_resps"]] == pytest.approx((-scored).tolist(), abs=1e-3)
        assert bool(sample["acc"]) == bool(scored[0] > scored[1])


@pytest.mark.slow
def test_a_wrong_plan_is_told_before_the_first_question(lmms_eval):
    answers, printed = lmms_eval("model=embedded,hide=12", "vfl_open")
    assert not answers
    assert "hide names 12; the model has 10 layers: 0 to 9." in printed.replace("\n", " ")


def an_adapter(folder):
    torch.manual_seed(0)
    names = [f"model.language_model.layers.{layer}.mlp.down_proj" for layer in range(3)]
    config = LoraConfig(r=4, target_modules=names, init_lora_weights=False)
    adapted = get_peft_model(vfl.load().model, config)
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                weights *= 8  # enough to change answers
    adapted.save_pretrained(str(folder))
    return folder


def rows_of(pairs, folder):
    path = folder / "rows.jsonl"
    with path.open("w") as file:
        for pair in pairs:
            asked = {"role": "user", "content": f"<image>{pair.question}"}
            turns = [asked, {"role": "assistant", "content": pair.answer}]
            file.write(json.dumps({"images": [str(pair.path("image"))], "messages": turns}) + "\n")
    return path
