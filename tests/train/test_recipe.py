"""A mistake in a recipe is one paragraph that names the key and what is allowed, before anything is written."""

import json
import logging

import pytest
import trained
from PIL import Image

from vfl.errors import InputError
from vfl.train.launch import main
from vfl.train.recipe import read_recipe
from vfl.train.run import train


@pytest.fixture
def good(qwen, data_of, tmp_path):
    """A recipe that would train, and a place for its changes."""
    values = trained.settings(qwen, data_of("image", "text"), tmp_path / "run")
    return trained.write_recipe(tmp_path / "recipe.yaml", values)


MISTAKES = {
    "a typo": ("lyers=full", ["lyers", "layers"]),
    "a typo inside": ("data.on_bad_rows=skip", ["data.on_bad_rows", "on_bad_row"]),
    "a wrong type": ("seed=first", ["seed", "'first'", "integer"]),
    "a negative seed": ("seed=-1", ["seed", "-1", "0"]),
    "a value out of the list": ("checkpointing=maybe", ["checkpointing", "'maybe'", "auto", "on", "off"]),
    "an unknown method": ("method=rlhf", ["method", "'rlhf'", "sft", "dpo"]),
    "no setting": ("layers", ["layers", "key=value"]),
    "a layer too many": ("layers=[2,9]", ["9", "5"]),
    "no layer": ("layers=[]", ["layers"]),
    "a function without a map": ("layers={functions: [counting]}", ["map"]),
    "a map that is not there": ("layers={functions: [counting], map: no.json}", ["no.json"]),
    "an unknown trainer field": ("trainer.learning_rat=1", ["trainer.learning_rat", "learning_rate"]),
    "a trainer field that is decided here": ("trainer.max_length=5", ["trainer.max_length", "data.max_length"]),
    "a trainer field without effect": ("trainer.shuffle_dataset=true", ["trainer.shuffle_dataset", "leave it out"]),
    "a trainer field that TRL refuses": ("trainer.lr_scheduler_type=round", ["round"]),
    "an evaluation that has its own key": ("trainer.eval_strategy=steps", ["evaluation.every"]),
    "an unknown LoRA field": ("lora.rank=4", ["rank"]),
    "an unknown target": ("lora.target_modules=[qproj]", ["qproj"]),
    "a model that is not there": ("model=/nowhere/model", ["/nowhere/model"]),
    "data that is not there": ("data.train=/nowhere/rows.json", ["/nowhere/rows.json", "data.train"]),
    "images that are not there": ("data.images=/nowhere", ["/nowhere", "data.images"]),
    "a template that is not there": ("chat_template=/nowhere.jinja", ["/nowhere.jinja"]),
    "a deepspeed that is not there": ("deepspeed=zero4", ["zero4", "zero2", "zero3-offload"]),
    "an unknown metric": ("evaluation={probes: micro, pairs: 1, metrics: [swop]}", ["swop", "swap"]),
    "an unknown function": ("evaluation={probes: micro, pairs: 1, functions: [cooking]}", ["cooking", "counting"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_paragraph(mistake, good, capsys):
    override, named = MISTAKES[mistake]
    assert main([str(good), override]) == 2
    message = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(message) == 1
    for word in named:
        assert word in message[0]
    left = {path.name for path in good.parent.glob("run/*")}
    # What evaluates is looked up behind the rows (the folder is empty).
    assert left <= ({"checkpoints"} if mistake == "an unknown function" else set())


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "no-recipe.yaml"),
        ("a: [1", "not YAML"),
        ("- a\n- b", "list"),
        ("", "'out' is missing"),
        ("out: x\nlayers: full\ndata: {}", "'data.train' is missing"),
        ("out: x\nlayers: full\ndata: {train: []}", "data.train"),
    ],
)
def test_a_file_that_is_no_recipe(content, named, tmp_path):
    file = tmp_path / "no-recipe.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=named):
        read_recipe(file)


def test_fields_of_trl_and_peft_go_through(good, tmp_path):
    train(
        good,
        ["trainer.adam_beta1=0.8", "trainer.max_steps=1", "lora.use_rslora=true", "lora.target_modules=[q_proj]"],
        progress=False,
    )
    config = json.loads((tmp_path / "run/adapter/adapter_config.json").read_text())
    assert config["use_rslora"] is True
    assert all(name.endswith("q_proj") for name in config["target_modules"])
    assert "adam_beta1: 0.8" in (tmp_path / "run/settings.yaml").read_text()


def test_rows_that_cannot_be_used_end_the_command(good, data_of, tmp_path, capsys, caplog):
    rows = data_of("image", "text", "image")
    bad = rows.with_name("bad.jsonl")
    bad.write_text(rows.read_text().replace("2-0.png", "gone.png"))
    assert main([str(good), f"data.train={bad}"]) == 2
    assert "bad.jsonl line 3" in capsys.readouterr().err
    assert (tmp_path / "run" / "errors.jsonl").exists()
    assert not (tmp_path / "run" / "settings.yaml").exists()
    with caplog.at_level(logging.WARNING):
        assert main([str(good), f"data.train={bad}", "data.on_bad_row=skip", "trainer.max_steps=1"]) == 0
    assert "gone.png" in caplog.text
    assert json.loads((tmp_path / "run" / "preflight.json").read_text())["data"]["bad"] == 1


def test_an_image_that_the_processor_refuses_is_a_bad_row(good, data_of, tmp_path, capsys):
    rows = data_of("image", "text")
    Image.new("RGB", (4000, 2)).save(rows.parent / "sliver.png")
    bad = rows.with_name("sliver.jsonl")
    bad.write_text(rows.read_text().replace("0-0.png", "sliver.png"))
    assert main([str(good), f"data.train={bad}"]) == 2
    assert "sliver.jsonl line 1" in capsys.readouterr().err
