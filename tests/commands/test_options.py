"""One text for one option: what a flag says does not depend on the command that has it."""

from collections import defaultdict

import pytest
import tiny
import yaml
from trained import map_of, settings, write_data, write_recipe
from transformers import Qwen2_5_VLModel

import vfl.loading.load as loading
from vfl.commands.main import command_line
from vfl.errors import InputError
from vfl.train.arms.plan import plan_study, write_recipes

LIMITS = {"min_pixels": 512, "max_pixels": 1024}
# Plain viewers: they read what is there, by two or three arguments.
VIEWERS = ("cache", "compare", "models", "probes show", "select report")


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
        "--dtype", "--device", "--device-map", "--quantize", "--attention", "--revision", "--chat-template",
        "--trust-remote-code",
    }  # fmt: skip
    for name in ("locate", "evaluate", "measure", "swap", "skip", "layers", "select score", "select run"):
        assert loading <= options_of(COMMANDS[name]).keys(), name


@pytest.mark.parametrize(
    ("arguments", "now"),
    [
        (("evaluate", "--skip-bad-rows"), "--on-bad-row skip"),
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


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if "--max-pixels" in options_of(command)])
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
        "evaluate", tiny_folder("qwen2_5_vl"), "--data", rows, "--out", tmp_path / "out", "--set", "batch=1"
    )
    assert code == 2
    assert errors.count("Error: ") == 1
    assert "Traceback" not in errors
    assert "There is not enough memory" in errors
    assert "max_pixels" in errors
    assert rows.read_bytes() == before
    assert not (tmp_path / "out" / "evaluation.json").exists()
