"""`vfl evaluate`: real runs on real files, adapters, baselines, and one paragraph for bad input."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from own_suite import write_own_suite
from peft import LoraConfig, get_peft_model

import vfl
from vfl.commands import evaluate
from vfl.errors import InputError
from vfl.evaluate.config import EvaluateConfig
from vfl.evaluate.result import AdapterId, read_evaluation
from vfl.evaluate.run import run
from vfl.evaluate.summary import compare, summarise
from vfl.models.identity import weights_sha256


@pytest.fixture(scope="module")
def model(tiny_folder):
    return tiny_folder("qwen2_5_vl")


@pytest.fixture(scope="module")
def suite(model, tmp_path_factory):
    return write_own_suite(vfl.load(model), tmp_path_factory.mktemp("suite") / "probes", 6)


@pytest.fixture(scope="module")
def adapter(model, tmp_path_factory):
    """An adapter that changes some answers."""
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    torch.manual_seed(0)
    names = [f"model.language_model.layers.{layer}.mlp.down_proj" for layer in range(3)]
    base = vfl.load(model, dtype="float32").model
    get_peft_model(base, LoraConfig(r=4, target_modules=names, init_lora_weights=False)).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def base_run(model, suite, tmp_path_factory):
    out = tmp_path_factory.mktemp("base")
    config = EvaluateConfig(model=str(model), out=out, probes=str(suite), which=("image", "source_image"))
    run(config, vfl.load(model))
    return out


@pytest.fixture
def data(tmp_path):
    """Four rows with images in a folder of their own, one without, of two kinds."""
    (tmp_path / "pictures").mkdir()
    rows = []
    for number in range(5):
        row = {"task": "counting" if number % 2 else "naming", "messages": []}
        question = "how many cats"
        if number:
            tiny.picture(seed=number).save(tmp_path / "pictures" / f"{number}.png")
            row["images"] = [f"{number}.png"]
            question = f"<image>{question}"
        row["messages"] = [{"role": "user", "content": question}, {"role": "assistant", "content": str(number)}]
        rows.append(row)
    path = tmp_path / "cats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def one_paragraph(errors):
    """The message, if that is all there is."""
    lines = [line for line in errors.splitlines() if "Loading weights" not in line and "answers:" not in line]
    paragraph = "\n".join(lines).strip()
    assert paragraph.startswith("Error: "), errors
    assert "\n\n" not in paragraph
    assert "Traceback" not in paragraph
    return paragraph.replace("\n", " ")


def test_probes_that_are_the_models_own_answers_are_all_right(base_run):
    evaluation, answered = read_evaluation(base_run)
    assert len(answered) == 12
    assert evaluation.groups["naming"].accuracy == 1.0
    assert evaluation.groups == summarise(answered)
    assert evaluation.differences is None
    assert evaluation.model.num_layers == 5
    assert evaluation.settings["which"] == ["image", "source_image"]


def test_an_adapter_is_compared_with_the_base(vfl_command, model, suite, adapter, base_run, tmp_path):
    config = tmp_path / "evaluate.yaml"
    config.write_text("which: [image, source_image]\nbatch_size: 4\n")
    arguments = ("evaluate", model, "--probes", suite, "--config", config, "--out", tmp_path / "out")
    code, output, errors = vfl_command(*arguments, "--adapter", adapter, "--baseline", base_run)
    assert code == 0, errors
    evaluation, answered = read_evaluation(tmp_path / "out")
    _, before = read_evaluation(base_run / "evaluation.json")
    assert evaluation.differences == compare(before, answered)
    change = evaluation.differences["naming"]
    assert change.lost > 0 == change.gained
    assert change.low <= change.difference <= change.high
    assert evaluation.baseline.groups == summarise(before)
    assert evaluation.adapter == AdapterId(path=str(adapter), sha256=weights_sha256(adapter))
    assert str(tmp_path / "out" / "evaluation.json") in output.replace("\n", "")
    assert f"{100 * change.difference:+.1f}" in output


def test_from_python_the_adapter_is_on_the_model_for_the_evaluation_alone(model, suite, adapter, tmp_path):
    vlm = vfl.load(model)
    settings = {"probes": str(suite), "functions": "naming", "progress": False}
    before = vfl.evaluate(vlm, out=tmp_path / "before", **settings)
    adapted = vfl.evaluate(vlm, out=tmp_path / "adapted", adapter=str(adapter), **settings)
    assert adapted.adapter == AdapterId(path=str(adapter), sha256=weights_sha256(adapter))
    assert adapted.groups["naming"].accuracy < before.groups["naming"].accuracy == 1.0
    assert vfl.evaluate(vlm, out=tmp_path / "after", **settings).groups == before.groups
    with pytest.raises(InputError, match="holds no adapter"):
        vfl.evaluate(vlm, out=tmp_path / "none", adapter=str(tmp_path), **settings)
    assert not (tmp_path / "none").exists()


def test_data_is_grouped_by_a_column(vfl_command, model, data, tmp_path):
    out = tmp_path / "out"
    arguments = ("--data", data, "--images", tmp_path / "pictures", "--column", "task", "--out", out)
    code, output, errors = vfl_command("evaluate", model, *arguments)
    assert code == 0, errors
    evaluation, answered = read_evaluation(out)
    assert {group: group_.n for group, group_ in evaluation.groups.items()} == {"cats/naming": 3, "cats/counting": 2}
    assert [answer.expected for answer in answered] == ["0", "1", "2", "3", "4"]
    assert "cats/counting" in output
    code, _, errors = vfl_command("evaluate", model, *arguments)
    assert code == 2
    assert "--overwrite" in one_paragraph(errors)
    code, _, errors = vfl_command("evaluate", model, *arguments, "--overwrite", "--baseline", out)
    assert code == 0, errors
    again, _ = read_evaluation(out)
    assert again.groups == evaluation.groups
    assert {change.difference for change in again.differences.values()} == {0.0}


def test_rows_left_out_are_told(vfl_command, model, data, tmp_path):
    (tmp_path / "pictures" / "3.png").write_bytes(b"no picture")
    arguments = ("evaluate", model, "--data", data, "--images", tmp_path / "pictures", "--out", tmp_path / "out")
    code, _, errors = vfl_command(*arguments)
    assert code == 2
    assert "3.png" in one_paragraph(errors)
    code, output, errors = vfl_command(*arguments, "--on-bad-row", "skip")
    assert code == 0, errors
    assert "1 rows of cats were left out" in output
    evaluation, answered = read_evaluation(tmp_path / "out")
    assert len(answered) == 4
    assert "3.png" in evaluation.notes[0]
    assert all(response.cut for response in answered), "a model of random weights comes to no end"
    assert evaluation.cut == {"cats": 1.0}
    assert "100% of cats" in evaluation.notes[1]
    assert "--max-new-tokens" in " ".join(output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("MODEL",), "--out is missing"),
        (("MODEL", "--out", "OUT", "--column", "task"), "--column says how to read --data"),
        (("MODEL", "--out", "OUT", "--data", "DATA", "--data", "DATA"), "Two --data are called"),
        (("MODEL", "--out", "OUT", "--data", "absent.jsonl"), "absent.jsonl"),
        (("MODEL", "--out", "OUT", "--data", "DATA", "--match", "fuzzy"), "'fuzzy'"),
        (("MODEL", "--out", "OUT", "--data", "DATA", "--column", "kind", "--images", "PICTURES"), "no column 'kind'"),
        (("MODEL", "--out", "OUT", "--baseline", "absent"), "No evaluation at absent"),
        (("MODEL", "--out", "OUT", "--baseline", "BASE", "--probes", "SUITE"), "do not cover the same items"),
        (("MODEL", "--out", "OUT", "--probes", "SUITE", "--functions", "ocr"), "no pairs for ocr; it has naming"),
        (("MODEL", "--out", "OUT", "--adapter", "PICTURES"), "holds no adapter"),
        (("MODEL", "--out", "OUT", "--config", "YAML"), "unknown key 'probe'"),
    ],
)
def test_bad_input_is_one_paragraph(vfl_command, model, suite, base_run, data, tmp_path, arguments, message):
    (tmp_path / "evaluate.yaml").write_text("probe: micro\n")
    places = {
        "MODEL": model,
        "SUITE": suite,
        "BASE": base_run,
        "DATA": data,
        "PICTURES": tmp_path / "pictures",
        "OUT": tmp_path / "out",
        "YAML": tmp_path / "evaluate.yaml",
    }
    code, _, errors = vfl_command("evaluate", *(places.get(argument, argument) for argument in arguments))
    assert code == 2
    assert message in one_paragraph(errors)
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_data_sets_are_named_after_their_files_or_as_written(tmp_path):
    there = tmp_path / "a=b.jsonl"
    there.touch()
    paths = {"test=rows.jsonl": ("test", "rows.jsonl"), "x/rows.jsonl": ("rows", "x/rows.jsonl"), there: ("a=b", there)}
    for written, (name, path) in paths.items():
        assert evaluate.data_sets([Path(written)], {}) == {name: {"path": Path(path)}}
    two = evaluate.data_sets([Path("one=rows.jsonl"), Path("two=rows.jsonl")], {"column": "task", "match": None})
    assert two == {name: {"path": Path("rows.jsonl"), "column": "task"} for name in ("one", "two")}


def test_a_damaged_evaluation_is_refused(base_run, tmp_path):
    for name in ("evaluation.json", "answers.jsonl"):
        (tmp_path / name).write_bytes((base_run / name).read_bytes())
    lines = (tmp_path / "answers.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "answers.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match="does not belong"):
        read_evaluation(tmp_path)
    (tmp_path / "answers.jsonl").write_text('{"id": 3}\n')
    with pytest.raises(InputError, match="holds no answers"):
        read_evaluation(tmp_path)
    content = json.loads((tmp_path / "evaluation.json").read_text())
    for changed, message in [
        (content | {"schema": 2}, "schema 2"),
        (content | {"extra": 1}, "extra"),
        ({"functions": {}}, "no evaluation"),
    ]:
        (tmp_path / "evaluation.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=message):
            read_evaluation(tmp_path)
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        read_evaluation(tmp_path)


def test_without_probes_and_data_the_models_own_probes_are_asked(vfl_command, tmp_path):
    code, output, errors = vfl_command("evaluate", "--pairs", 2, "--functions", "counting,ocr", "--out", tmp_path)
    assert code == 0, errors
    assert {name: group_.n for name, group_ in read_evaluation(tmp_path)[0].groups.items()} == {"counting": 2, "ocr": 2}
    assert "embedded" in output


def test_the_table_takes_texts_as_they_are(base_run):
    from rich.console import Console

    result = read_evaluation(base_run)[0]
    result = result.model_copy(update={"groups": {"[bold]sat[/bold]": result.groups["naming"]}})
    console = Console(width=120)
    with console.capture() as captured:
        console.print(evaluate.table_of(result))
    assert "[bold]sat[/bold]" in captured.get()
