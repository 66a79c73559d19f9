"""One text for one option: what a flag says does not depend on the command that has it."""

import logging
import re
import shlex
import warnings
from collections import defaultdict
from typing import Literal, get_args, get_origin

import pages  # noqa: F401 - makes pages_from_code importable
import pytest
import tiny
import typer
import yaml
from pages_from_code.settings import SETTINGS, resolve
from trained import map_of, settings, write_data, write_recipe
from transformers import Qwen2_5_VLModel

import vfl.loading.load as loading
from vfl.commands.help import GENERAL, GROUPS, REQUIRED, groups_of
from vfl.commands.main import command_line
from vfl.commands.options import QUIET
from vfl.errors import InputError
from vfl.probes.style import STYLES
from vfl.train.arms.plan import plan_study, write_recipes

LIMITS = {"min_pixels": 512, "max_pixels": 1024}
# Plain viewers: they read what is there, by two or three arguments.
NESTED = ("train", "arms", "lora-config", "select run")
"""Their options set keys inside others."""
VIEWERS = ("cache", "compare", "models", "probes check", "probes show", "push", "select report", "serve")


def commands_of(group, path=""):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, f"{name} ")
        else:
            yield path + name, command


COMMANDS = dict(commands_of(command_line()))


def options_of(command):
    return {
        flag: parameter
        for parameter in command.params
        for flag in parameter.opts
        if parameter.param_type_name == "option"
    }


def test_the_same_option_says_the_same_everywhere():
    texts = defaultdict(lambda: defaultdict(list))
    for name, command in COMMANDS.items():
        for flag, parameter in options_of(command).items():
            texts[flag][parameter.help].append(name)
    assert len(texts) > 60
    differing = {flag: dict(own) for flag, own in texts.items() if len(own) > 1}
    assert not differing


def test_every_option_has_a_text():
    bare = [
        f"{name} {parameter.name}" for name, command in COMMANDS.items() for parameter in command.params
        if not getattr(parameter, "help", None)
    ]  # fmt: skip
    assert not bare


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_the_text(name, vfl_command):
    code, output, _ = vfl_command(*name.split(), "--help")
    assert code == 0
    shown = "".join(output.split())  # lines end where the terminal does
    for flag, parameter in options_of(COMMANDS[name]).items():
        assert flag in shown
        assert "".join(parameter.help.split()) in shown, flag


def test_help_has_groups_and_examples():
    for name, command in COMMANDS.items():
        groups = [group for group, _ in groups_of(command, typer.Context(command))]
        assert groups == sorted(groups, key=GROUPS.index), name
        assert groups[-1] == GENERAL, name
        assert command.epilog, name
        for line in command.epilog.splitlines():
            words = shlex.split(line)
            assert words[: 1 + len(name.split())] == ["vfl", *name.split()], line
            command.make_context(name, words[1 + len(name.split()) :])  # raises for an option that there is not


def test_h_is_help(vfl_command):
    for name in ("", "locate", "select filter"):
        assert vfl_command(*name.split(), "-h") == vfl_command(*name.split(), "--help")


def test_summaries_stand_on_one_line():
    for name, command in [*COMMANDS.items(), *command_line().commands.items()]:
        summary = command.get_short_help_str(200)
        assert 10 < len(summary) < 55, (name, summary)
        assert summary.endswith("."), name


def literals(annotation):
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for part in get_args(annotation) for value in literals(part)]


SETTINGS_OF = {use.split("`")[1].removeprefix("vfl "): resolve(where) for _, use, where in SETTINGS}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in (*VIEWERS, *NESTED)])
def test_help_says_of_settings_what_holds(name):
    """Required, defaults and choices are written in both places: help is shown without importing what it is about."""
    command, fields = COMMANDS[name], SETTINGS_OF[name].model_fields
    for parameter in command.params:
        field = fields.get(parameter.name)
        if field is None:
            continue
        said = (name, parameter.name)
        if field.is_required():
            assert parameter.name in command.callback.required, said
            continue
        default = field.get_default(call_default_factory=True)
        if isinstance(default, str | int | float) and not isinstance(default, bool):
            assert parameter.show_default == str(default), said
        choices = [value for value in literals(field.annotation) if isinstance(value, str)]
        words = re.findall(r"[\w-]+", f"{parameter.metavar} {parameter.help}")
        assert set(choices) <= set(words), said
        if parameter.metavar and "|" in parameter.metavar:
            assert parameter.metavar == f"<{'|'.join(choices or STYLES)}>", said


@pytest.mark.parametrize("name", [name for name in COMMANDS if hasattr(COMMANDS[name].callback, "required")])
def test_help_marks_what_is_required(name):
    command, required = COMMANDS[name], COMMANDS[name].callback.required
    records = dict(record for _, group in groups_of(command, typer.Context(command)) for record in group)
    marked = [written for written, text in records.items() if text.endswith(f"[{REQUIRED}]")]
    assert len(marked) == len(required) == len(set(required) & {parameter.name for parameter in command.params})


def test_what_is_missing_or_wrong_is_named_as_it_is_written(vfl_command, tmp_path):
    """And one mistake hides no other."""
    code, _, errors = vfl_command("locate", "--mode", "both", "--reading", "none", "--set", "pairs=0")
    assert code == 2
    for part in ("--out is missing", "--mode is 'both'", "--reading is 'none'", "settings: 'pairs' is 0"):
        assert part in errors, errors
    assert "QUESTION is missing" in vfl_command("swap", "embedded", "a.png", "b.png")[2]
    assert "--device-map is missing" not in errors
    file = tmp_path / "settings.yaml"
    file.write_text("mode: both\nout: out\nreading: none\n")
    _, _, errors = vfl_command("locate", "--config", file, "--reading", "never", "--set", "reading=ever")
    assert f"{file}: 'mode' is 'both'" in errors.replace("\n", "")
    assert "'reading' is 'ever'" in errors
    assert "--" not in errors


def test_quiet_is_silent_but_for_the_result(vfl_command, tiny_folder, tmp_path, monkeypatch, capfd):
    for name in QUIET:
        monkeypatch.setenv(name, "")  # to be what it was, after the test
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)
    rows = write_data(tmp_path / "rows", ["image"])
    arguments = ("evaluate", tiny_folder("qwen2_5_vl"), "--data", f"own={rows}", "--out", tmp_path / "out")
    arguments += ("--max-new-tokens", 1)
    capfd.readouterr()
    code, output, errors = vfl_command(*arguments)
    assert code == 0
    assert "answers" in errors, "progress"
    with warnings.catch_warnings():
        assert vfl_command(*arguments, "--overwrite", "--quiet") == (0, output, "")
    assert "own" in output


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in VIEWERS])
def test_every_command_with_settings_takes_them_from_a_file_and_one_by_one(name):
    assert {"--config", "--set"} <= options_of(COMMANDS[name]).keys()


@pytest.mark.parametrize(
    ("name", "key", "meant"),
    [
        ("skip", "tokns", "tokens"),
        ("layers", "sampel", "sample"),
        ("lora-config", "tol", "tool"),
        ("merge", "adaptr", "adapter"),
        ("probes make", "pairz", "pairs"),
    ],
)
def test_a_misspelt_setting_says_which_is_meant(vfl_command, tmp_path, name, key, meant):
    (tmp_path / "settings.yaml").write_text(f"{key}: 3\n")
    for arguments in (("--config", tmp_path / "settings.yaml"), ("--set", f"{key}=3")):
        code, _, errors = vfl_command(*name.split(), *arguments)
        assert code == 2
        assert f"unknown key '{key}', did you mean {meant}" in errors, errors


def test_a_plain_viewer_has_no_settings():
    assert all(not {"--config", "--set"} & options_of(COMMANDS[name]).keys() for name in VIEWERS)


def test_commands_that_load_a_model_load_it_alike():
    loading = {
        "--dtype", "--device", "--device-map", "--quantize", "--attn-implementation", "--revision", "--chat-template",
        "--trust-remote-code",
    }  # fmt: skip
    for name in ("locate", "evaluate", "measure", "swap", "skip", "layers", "select score", "select run"):
        assert loading <= options_of(COMMANDS[name]).keys(), name


@pytest.mark.parametrize(
    ("arguments", "now"),
    [
        (("evaluate", "--skip-bad-rows"), "--on-bad-row skip"),
        (("evaluate", "--batch", "8"), "--batch-size"),
        (("locate", "--attention=eager"), "--attn-implementation"),
        (("select", "score", "--strict"), "--on-bad-row error"),
        (("lora-config", "--match"), "--match-rank"),
    ],
)
def test_an_option_of_the_version_before_names_the_new_one(vfl_command, arguments, now):
    code, _, errors = vfl_command(*arguments)
    assert code == 2
    assert "was an option of vfl 0.1" in errors
    assert now in errors


def test_completion_is_there_and_out_of_the_way(vfl_command, monkeypatch):
    code, output, _ = vfl_command("--help")
    assert code == 0
    assert "completion" not in output
    # What the shell itself calls at a tab: no test may depend on the shell that it happens to be started from.
    monkeypatch.setenv("_VFL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "vfl loc")
    monkeypatch.setenv("COMP_CWORD", "1")
    code, output, errors = vfl_command()
    assert code == 0, errors
    assert output.split() == ["locate"]


def adapter_of(model, folder):
    """An adapter that names its base."""
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file

    (folder / "adapter").mkdir()
    LoraConfig(base_model_name_or_path=str(model)).save_pretrained(folder / "adapter")
    save_file({"x": torch.ones(1)}, folder / "adapter" / "adapter_model.safetensors")
    return folder / "adapter"


def arguments_of(name, model, folder):
    """The least that a command asks for, before it loads the model."""
    rows, fmap = write_data(folder / "rows", ["image"] * 4), map_of(model, folder)
    picture = folder / "picture.png"
    tiny.picture().save(picture)
    out = ("--out", folder / "out")
    score = (rows, "--map", fmap, "--model", model, *out)
    return {
        "evaluate": (model, "--data", rows, *out),
        "layers": (model, "--data", rows),
        "locate": (model, *out),
        "merge": (adapter_of(model, folder), *out),
        "measure": (model, "--metrics", "var", *out),
        "negatives": (rows, "--model", model, "--blind", "1", *out),
        "select run": (*score, "--budget", "50%"),
        "select score": score,
        "skip": (model, "--entry", "1"),
        "swap": (model, picture, picture, "How many?"),
    }[name]


@pytest.fixture
def reached(monkeypatch):
    """What the processor would be set to; the weights are never read."""
    calls = []

    def note(processor, family, **limits):
        calls.append(limits)
        raise InputError("Enough.")

    monkeypatch.setattr(loading, "set_limits", note)
    return calls


SIZED = [name for name, command in COMMANDS.items() if "--max-pixels" in options_of(command) and name != "estimate"]
"""All that show pictures to a model: `vfl estimate` loads none."""


@pytest.mark.parametrize("name", SIZED)
def test_a_command_passes_the_size_of_pictures_on(name, vfl_command, tiny_folder, tmp_path, reached):
    model = tiny_folder("qwen2_5_vl")
    arguments = arguments_of(name, model, tmp_path)
    setting = "score.max_pixels=1024" if name == "select run" else "max_pixels=1024"
    code, _, errors = vfl_command(*name.split(), *arguments, "--min-pixels", 512, "--set", setting)
    assert (code, reached) == (2, [LIMITS]), errors


def test_no_command_that_loads_a_model_lacks_the_size_of_pictures():
    for name, command in COMMANDS.items():
        if "--device" in options_of(command):
            assert {"--min-pixels", "--max-pixels"} <= options_of(command).keys(), name


def test_a_recipe_passes_the_size_of_pictures_on(vfl_command, tiny_folder, tmp_path, reached):
    model = tiny_folder("qwen2_5_vl")
    values = settings(model, write_data(tmp_path / "rows", ["image"] * 4), tmp_path / "out", **LIMITS)
    values["evaluation"] = {"data": {"own": {"path": values["data"]["train"]}}}
    recipe = write_recipe(tmp_path / "recipe.yaml", values)
    code, _, errors = vfl_command("train", recipe)
    assert (code, reached) == (2, [LIMITS]), errors
    study = plan_study(recipe, ["study.layers=[full]"], tmp_path / "arms", ())
    write_recipes(study)
    assert all(yaml.safe_load(run.recipe.read_text()).items() >= LIMITS.items() for run in study.runs)
    assert study.runs


@pytest.mark.parametrize("value", ["0", "-5", "large"])
def test_bad_sizes_are_refused_before_anything_is_loaded(value, vfl_command, reached):
    code, _, errors = vfl_command("locate", "--out", "nowhere", "--set", f"max_pixels={value}")
    assert (code, reached) == (2, [])
    assert "max_pixels" in errors


def test_a_device_that_is_none(vfl_command, tiny_folder, tmp_path):
    code, _, errors = vfl_command("locate", tiny_folder("qwen2_5_vl"), "--out", tmp_path / "out", "--device", "tpu9")
    assert code == 2
    assert "device='tpu9' is no device; expected such as cpu, cuda or cuda:0" in errors
    assert not (tmp_path / "out").exists()


def test_no_memory_is_one_paragraph_and_what_is_there_stays(vfl_command, tiny_folder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate much")

    rows = write_data(tmp_path / "rows", ["image"])
    before = rows.read_bytes()
    monkeypatch.setattr(Qwen2_5_VLModel, "get_image_features", full)
    code, _, errors = vfl_command(
        "evaluate", tiny_folder("qwen2_5_vl"), "--data", rows, "--out", tmp_path / "out", "--set", "batch_size=1"
    )
    assert code == 2
    assert errors.count("Error: ") == 1
    assert "Traceback" not in errors
    assert "There is not enough memory" in errors
    assert "max_pixels" in errors
    assert rows.read_bytes() == before
    assert not (tmp_path / "out" / "evaluation.json").exists()
