"""Snippets for other trainers: read as each tool reads them, they adapt exactly the modules of the configuration.

The rules of the tools are restated here in a few lines; the tests marked slow fetch the tools' packages and take the
names of the settings, and what can be run of the rules, from there.
"""

import ast
import logging
import re
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest
import tiny
import yaml
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer

from vfl.errors import InputError
from vfl.train.adapter.lora import build_lora
from vfl.train.export.meta_model import meta_model
from vfl.train.export.module_patterns import grouped, pattern_of, python_of
from vfl.train.export.snippets import TOOLS, options_of, snippet

FAMILIES = sorted(tiny.FAMILIES)
BOTH = ("vision", "projector")


@pytest.fixture
def empty(tiny_folder):
    return lambda family: meta_model(tiny_folder(family))


def keywords(text, function):
    """The keyword arguments of a call in Python text, evaluated."""
    (call,) = (
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(function)
    )
    return {word.arg: eval(compile(ast.Expression(word.value), "snippet", "eval")) for word in call.keywords}


def arguments(text):
    """The options of a command line, as a shell reads it; several words make a list."""
    script = "swift() { printf '%s\\0' \"$@\"; }\n" + text
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    options = {}
    for word in done.stdout.split("\0")[1:-1]:
        if word.startswith("--"):
            name = word.removeprefix("--")
            options[name] = []
        else:
            options[name].append(word)
    return {name: words[0] if len(words) == 1 else words for name, words in options.items()}


def within(targets, model):
    """LLaMA-Factory's rule for vision-language models: a target is looked for inside every name."""
    return [name for name, _ in model.named_modules() if any(target in name for target in targets)]


# What each tool gives PEFT as target_modules.
READ = {
    "peft": lambda text, model: keywords(text, "LoraConfig")["target_modules"],
    "unsloth": lambda text, model: keywords(text, "get_peft_model")["target_modules"],
    "llamafactory": lambda text, model: within(yaml.safe_load(text)["lora_target"].split(","), model),
    "axolotl": lambda text, model: yaml.safe_load(text)["lora_target_modules"],
    "swift": lambda text, model: arguments(text)["target_regex"],
}


def adapted(model, target_modules):
    adapted_model = get_peft_model(model, LoraConfig(r=2, target_modules=target_modules)).named_modules()
    return {name.removeprefix("base_model.model.") for name, module in adapted_model if isinstance(module, LoraLayer)}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tool", TOOLS)
def test_each_tool_adapts_exactly_the_same_modules(empty, family, tool):
    model = empty(family)
    also = ("vision",) if family == "gemma3" else BOTH
    config = build_lora(model, [0, 3], {"r": 2}, also=also)
    wanted = set(config.target_modules)
    text = snippet(tool, config, "org/model", also)
    assert adapted(model, READ[tool](text, model)) == wanted


def test_single_digits_are_no_beginnings_of_longer_numbers(empty):
    """Layer 1 of a model with layers 10 to 19; and the vision tower's layer of the same number."""
    names = [f"model.language_model.layers.{layer}.self_attn.q_proj" for layer in range(30)]
    names += [f"model.vision_tower.encoder.layers.{layer}.self_attn.q_proj" for layer in range(30)]
    chosen = [names[1], names[12]]
    assert [name for name in names if re.fullmatch(pattern_of(chosen), name)] == chosen
    assert [name for name in names if any(part in name for part in chosen)] == chosen


@pytest.mark.parametrize(
    "names",
    [
        ["a.layers.3.x", "a.layers.3.y.z", "a.layers.12.x"],
        ["a.layers.3.x", "b.encoder.layers.3.x", "b.encoder.layers.4.x"],
        ["model.visual.blocks.1.attn.qkv", "model.visual.merger.mlp.0", "a.layers.0.x"],
        ["plain"],
        ["a.layers.0.experts.1.up", "a.layers.0.experts.2.up", "a.layers.1.experts.1.up"],
    ],
    ids=str,
)
def test_patterns_and_expressions_hold_the_names_and_no_others(names):
    others = [*(name + "x" for name in names), *(f"x{name}" for name in names), *(f"{n}.weight" for n in names)]
    others += [re.sub(r"\d+", lambda digits: digits[0] + "0", name) for name in names if re.search(r"[1-9]", name)]
    assert all(re.fullmatch(pattern_of(names), name) for name in names)
    assert not [name for name in {*others} - {*names} if re.fullmatch(pattern_of(names), name)]
    assert sorted(eval(python_of(names))) == sorted(names)
    groups, single = grouped(names)
    assert sum(len(layers) * len(inside) for _, layers, inside in groups) + len(single) == len(names)


OPTIONS = {
    "r": 8,
    "lora_alpha": 24,
    "lora_dropout": 0.2,
    "use_dora": True,
    "use_rslora": True,
    "init_lora_weights": "pissa",
    "modules_to_save": ["model.language_model.norm"],
}


def test_settings_arrive_under_the_tools_own_names(empty):
    model = empty("qwen2_vl")
    config = build_lora(model, [1], OPTIONS)
    texts = {tool: snippet(tool, config, "org/model") for tool in TOOLS}
    for tool, function in (("peft", "LoraConfig"), ("unsloth", "get_peft_model")):
        written = keywords(texts[tool], function)
        assert {name: written[name] for name in OPTIONS} == OPTIONS
    assert LoraConfig(**keywords(texts["peft"], "LoraConfig")) == config
    read = yaml.safe_load(texts["llamafactory"])
    del read["lora_target"]
    assert read == {
        "model_name_or_path": "org/model",
        "finetuning_type": "lora",
        "lora_rank": 8,
        "lora_alpha": 24,
        "lora_dropout": 0.2,
        "freeze_language_model": False,
        "freeze_vision_tower": True,
        "freeze_multi_modal_projector": True,
        "use_rslora": True,
        "use_dora": True,
        "pissa_init": True,
        "pissa_iter": -1,
        "additional_target": "model.language_model.norm",
    }
    read = yaml.safe_load(texts["axolotl"])
    del read["lora_target_modules"]
    assert read == {
        "base_model": "org/model",
        "adapter": "lora",
        "lora_r": 8,
        "lora_alpha": 24,
        "lora_dropout": 0.2,
        "peft_use_dora": True,
        "peft_use_rslora": True,
        "peft_init_lora_weights": "pissa",
        "lora_modules_to_save": ["model.language_model.norm"],
    }
    read = arguments(texts["swift"])
    del read["target_regex"]
    assert read == {
        "model": "org/model",
        "tuner_type": "lora",
        "lora_rank": "8",
        "lora_alpha": "24",
        "lora_dropout": "0.2",
        "use_rslora": "true",
        "use_dora": "true",
        "init_weights": "pissa",
        "modules_to_save": "model.language_model.norm",
    }


def test_names_with_signs_survive_the_shell_and_yaml(empty):
    config = build_lora(empty("llava"), [1])
    name = "/data/my model's: #1"
    assert yaml.safe_load(snippet("axolotl", config, name))["base_model"] == name
    assert arguments(snippet("swift", config, name))["model"] == name
    assert repr(name) in snippet("unsloth", config, name)


@pytest.mark.parametrize(
    ("tool", "options", "message"),
    [
        ("llamafactory", {"rank_pattern": {"q_proj": 2}}, "LLaMA-Factory has no setting for rank_pattern"),
        ("llamafactory", {"init_lora_weights": "olora"}, "LLaMA-Factory has no setting for init_lora_weights"),
        ("swift", {"alpha_pattern": {"q_proj": 2}}, "ms-swift has no setting for alpha_pattern"),
        ("axolotl", {"lora_bias": True}, "Axolotl has no setting for lora_bias"),
        ("axolotl", {"init_lora_weights": False}, "Axolotl has no setting for init_lora_weights"),
        ("axolotl", {"r": 3, "lora_alpha": 2.5}, "whole numbers for alpha, here it is 2.5"),
        ("trl", {}, "known ones are peft, llamafactory, swift, axolotl, unsloth"),
    ],
)
def test_what_a_tool_cannot_express_is_refused(empty, tool, options, message):
    with pytest.raises(InputError, match=message):
        snippet(tool, build_lora(empty("llava"), [1], options), "org/model")


def test_only_what_differs_is_written(empty):
    assert options_of(build_lora(empty("llava"), [1])) == {}
    assert options_of(build_lora(empty("llava"), [1], OPTIONS)).keys() == OPTIONS.keys() - {
        "r",
        "lora_alpha",
        "lora_dropout",
    }


# ---- what the tools' own packages say ----

PACKAGES = {"llamafactory": "llamafactory", "swift": "ms-swift", "axolotl": "axolotl", "unsloth": "unsloth"}


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """The source of a tool's newest release, unpacked and not installed."""
    folders = {}

    def fetch(tool):
        if tool not in folders:
            folder = tmp_path_factory.mktemp(tool)
            # A release without a wheel is built, and its build then reads the torch that is installed here.
            command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w"]
            done = subprocess.run([*command, str(folder), PACKAGES[tool]], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"{tool} could not be fetched: {done.stderr.strip().splitlines()[-1:]}")
            (wheel,) = folder.glob("*.whl")
            zipfile.ZipFile(wheel).extractall(folder / "source")
            folders[tool] = folder / "source"
        return folders[tool]

    return fetch


def fields_in(*files):
    """Names with a type, in any class of these files."""
    trees = [ast.parse(Path(file).read_text(encoding="utf-8")) for file in files]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)]
    return {node.target.id for node in nodes if isinstance(node.target, ast.Name)}


@pytest.mark.slow
def test_llamafactory_reads_it_so(package, empty):
    source = package("llamafactory") / "llamafactory"
    known = fields_in(*(source / "hparams").glob("*_args.py"))
    model = empty("qwen2_vl")
    assert yaml.safe_load(snippet("llamafactory", build_lora(model, [1], OPTIONS), "m")).keys() <= known
    text = (source / "model" / "model_utils" / "visual.py").read_text(encoding="utf-8")
    text = text.replace("from ...extras import logging", "")
    logger = types.SimpleNamespace(info_rank0=logging.info, warning_rank0=logging.warning)
    visual = types.ModuleType("visual")
    visual.logging = types.SimpleNamespace(get_logger=lambda name: logger)
    sys.modules["visual"] = visual
    exec(compile(text, "visual.py", "exec"), visual.__dict__)
    for family in FAMILIES:
        for also in ((), ("vision",), BOTH):
            if family == "gemma3" and "projector" in also:
                continue
            model = empty(family)
            config = build_lora(model, [0, 3], {"r": 2}, also=also)
            wanted = set(config.target_modules)
            written = yaml.safe_load(snippet("llamafactory", config, "m", also))
            settings = types.SimpleNamespace(**written)
            targets = visual.patch_target_modules(model, settings, written["lora_target"].split(","))
            assert adapted(model, targets) == wanted, (family, also)


@pytest.mark.slow
def test_swift_reads_it_so(package, empty):
    source = package("swift") / "swift"
    known = fields_in(*(source / "arguments").rglob("*.py"))
    read = arguments(snippet("swift", build_lora(empty("qwen2_vl"), [1], OPTIONS), "m"))
    assert read.keys() <= known
    tree = ast.parse((source / "pipelines" / "train" / "tuner.py").read_text(encoding="utf-8"))
    (rule,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "get_target_modules")
    rule.args = ast.parse("def f(args, model): ...").body[0].args
    rule.returns = None
    space = {}
    exec(compile(ast.Module([rule], []), "tuner.py", "exec"), space)
    # tuner_args.py puts target_regex in the place of target_modules.
    assert "self.target_modules = self.target_regex" in (source / "arguments" / "tuner_args.py").read_text()
    arguments_read = types.SimpleNamespace(target_modules=read["target_regex"])
    assert space["get_target_modules"](arguments_read, None) == read["target_regex"]


@pytest.mark.slow
def test_axolotl_reads_it_so(package, empty):
    schemas = package("axolotl") / "axolotl" / "utils" / "schemas"
    space = {"__name__": "axolotl_peft"}
    module = types.ModuleType("axolotl_peft")
    sys.modules["axolotl_peft"] = module
    module.__dict__.update(space)
    exec(compile((schemas / "peft.py").read_text(encoding="utf-8"), "peft.py", "exec"), module.__dict__)
    config = build_lora(empty("qwen2_vl"), [1], OPTIONS | {"rank_pattern": {"q_proj": 3}})
    written = yaml.safe_load(snippet("axolotl", config, "m"))
    assert "base_model" in fields_in(schemas / "model.py")
    del written["base_model"]
    read = module.LoraConfig.model_validate(written)
    assert {name: getattr(read, name) for name in written} == written


@pytest.mark.slow
def test_unsloth_reads_it_so(package, empty):
    models = package("unsloth") / "unsloth" / "models"
    tree = ast.parse((models / "vision.py").read_text(encoding="utf-8"))
    (function,) = (
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "get_peft_model"
    )
    named = {argument.arg for argument in function.args.args}
    written = keywords(snippet("unsloth", build_lora(empty("qwen2_vl"), [1], OPTIONS), "m"), "get_peft_model")
    # What it does not name goes to LoraConfig through **kwargs.
    assert function.args.kwarg.arg == "kwargs"
    assert written.keys() - named == {"use_dora"}
    assert "**kwargs,\n        }" in ast.get_source_segment((models / "vision.py").read_text(), function)
    # A list of names with dots is left as it is, while none of the finetune_* filters is turned off.
    defaults = dict(zip(reversed([a.arg for a in function.args.args]), reversed(function.args.defaults), strict=False))
    filters = [name for name in defaults if name.startswith("finetune_") and name.endswith(("layers", "modules"))]
    off = {"finetune_audio_layers", "finetune_last_n_layers"}
    assert all(
        ast.literal_eval(defaults[name]) is (name not in off) for name in filters if name != "finetune_last_n_layers"
    )
    assert "class FastVisionModel" in (models / "loader.py").read_text(encoding="utf-8")
