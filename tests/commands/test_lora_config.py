"""`vfl lora-config` and `vfl merge`, as they are typed."""

import json

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForImageTextToText

from vfl.functionmap import FunctionEntry, FunctionMap
from vfl.train.export.meta_model import identify_model, meta_model

NAMES = ["adapter_config.json", "axolotl.yaml", "llamafactory.yaml", "peft_lora.py", "swift.sh", "unsloth_lora.py"]


@pytest.fixture
def model(tiny_folder):
    return tiny_folder("qwen2_5_vl")


@pytest.fixture
def map_file(model, tmp_path):
    curve = [0.0] * 5
    counting = FunctionEntry(
        layers=[2],
        peak=2,
        distributed=False,
        pairs=10,
        kept=10,
        accuracy=1.0,
        changed=curve,
        followed_source=curve,
        ci_low=curve,
        ci_high=curve,
        control=None,
        logprob_effect=None,
    )
    fmap = FunctionMap(model=identify_model(meta_model(model)), functions={"counting": counting})
    fmap.save(tmp_path / "map.json")
    return tmp_path / "map.json"


def layers_of(names):
    assert all(name.startswith("model.language_model.layers.") for name in names)
    return sorted({int(name.split(".")[3]) for name in names})


def test_a_map_becomes_a_configuration_that_peft_loads(vfl_command, model, map_file, tmp_path):
    out = tmp_path / "lora"
    options = ("--functions", "counting", "--model", model, "--expand", 1, "--lora", "r=8", "--lora", "use_dora=true")
    code, output, _ = vfl_command("lora-config", map_file, *options, "--out", out)
    assert code == 0
    assert "3 of 5 layers: 1–3" in output
    assert "21 modules, r 8, alpha 8" in output
    assert sorted(path.name for path in out.iterdir()) == NAMES
    config = LoraConfig.from_pretrained(out)
    assert (config.r, config.lora_alpha, config.use_dora, config.inference_mode) == (8, 8, True, False)
    assert config.base_model_name_or_path == str(model)
    assert layers_of(config.target_modules) == [1, 2, 3]
    adapted = get_peft_model(AutoModelForImageTextToText.from_pretrained(model), config)
    names = [name for name, module in adapted.named_modules() if isinstance(module, LoraLayer)]
    assert len(names) == 21
    count = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert f"{count:,} trainable parameters" in output
    assert yaml.safe_load((out / "axolotl.yaml").read_text())["peft_use_dora"] is True


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--arm", "reversed"), [0, 1, 3, 4]),
        (("--arm", "full"), [0, 1, 2, 3, 4]),
        (("--arm", "random", "--seed", 1), None),
    ],
    ids=str,
)
def test_arms(vfl_command, model, map_file, options, expected):
    code, output, _ = vfl_command(
        "lora-config", map_file, "--functions", "counting", "--model", model, *options, "--tool", "swift"
    )
    assert code == 0
    assert output.count("swift sft") == 1
    assert "get_peft_model" not in output
    if expected:
        assert f"(?:{'|'.join(map(str, expected))})" in output
    else:
        assert "1 of 5 layers" in output


def test_layers_without_a_map_and_equal_parameters(vfl_command, model):
    code, output, _ = vfl_command("lora-config", "--layers", "1,3", "--model", model, "--match-rank", "--lora", "r=4")
    assert code == 0
    assert "14 modules, r 10, alpha 4" in output
    assert all(tool in output for tool in ("Plain PEFT", "LLaMA-Factory", "ms-swift", "Axolotl", "Unsloth"))
    code, output, _ = vfl_command("lora-config", "--layers", "full", "--model", model, "--tool", "peft")
    assert code == 0
    assert "5 of 5 layers" in output


def test_a_tool_that_cannot_express_it_is_left_out_with_the_reason(vfl_command, model, tmp_path):
    options = ("--layers", "1", "--model", model, "--lora", "rank_pattern={q_proj: 2}")
    code, output, _ = vfl_command("lora-config", *options, "--out", tmp_path / "lora")
    assert code == 0
    assert "Left out: LLaMA-Factory has no setting for rank_pattern" in output
    assert not (tmp_path / "lora" / "llamafactory.yaml").exists()
    code, _, errors = vfl_command("lora-config", *options, "--tool", "llamafactory")
    assert code == 2
    assert "has no setting for rank_pattern" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layers", "1-9"), "names layer 5–9, but"),
        (("--layers", "1", "--tool", "trl"), "--tool is 'trl': Input should be 'peft', 'llamafactory'"),
        (("--layers", "1", "--lora", "rank=3"), "lora.rank is no field"),
        (("--layers", "1", "--lora", "r"), "not of the form FIELD=VALUE"),
        (("--layers", "1", "--lora", "r={"), "is not YAML"),
        (("--layers", "1", "--also-adapt", "audio"), "also_adapt names audio"),
        (("--arm", "half"), "layers.arm"),
        ((), "needs a set of layers"),
        (("--functions", "counting"), "no map says which they are"),
        (("--preset", "qwen2.5-vl-7b/10-23"), "is for Qwen2.5-VL with 28 layers"),
        (("--layers", "1", "--model", "/no/such/folder"), "No model folder"),
        (("--set", "layers.rule=gradient"), "depend on the training rows"),
        (("--set", "layers.lst=3"), "unknown key 'layers.lst', did you mean"),
    ],
    ids=str,
)
def test_bad_input_is_one_paragraph(vfl_command, model, options, message):
    arguments = options if "--model" in options else (*options, "--model", model)
    code, output, errors = vfl_command("lora-config", *arguments)
    assert code == 2
    assert output == ""
    assert message in errors
    assert errors.strip().count("\n") == 0
    assert errors.startswith("Error: ")


def test_settings_from_a_file_flags_and_sets(vfl_command, model, map_file, tmp_path):
    """Flags go into the file's `layers` and `lora`; --set is over both."""
    recipe = tmp_path / "lora.yaml"
    layers = {"functions": ["counting"], "map": str(map_file), "expand": 2}
    recipe.write_text(yaml.safe_dump({"model": str(model), "layers": layers, "lora": {"r": 8}, "tool": "peft"}))
    code, output, errors = vfl_command("lora-config", "--config", recipe)
    assert code == 0, errors
    assert "5 of 5 layers" in output
    assert "r 8, alpha 8" in output
    code, output, errors = vfl_command(
        "lora-config", "--config", recipe, "--expand", 0, "--lora", "lora_alpha=32", "--set", "lora.r=4"
    )
    assert code == 0, errors
    assert "1 of 5 layers: 2" in output
    assert "r 4, alpha 32" in output
    code, output, errors = vfl_command("lora-config", "--config", recipe, "--set", "layers=1,3")
    assert code == 0, errors
    assert "2 of 5 layers: 1,3" in output.replace(", ", ",")
    recipe.write_text(yaml.safe_dump({"model": str(model), "layers": "1-2"}))
    code, _, errors = vfl_command("lora-config", "--config", recipe, "--expand", 1)
    assert code == 2
    assert "the flags give expand" in errors


def test_a_map_of_another_model_is_refused(vfl_command, map_file, tiny_folder):
    code, _, errors = vfl_command("lora-config", map_file, "--functions", "counting", "--model", tiny_folder("llava"))
    assert code == 2
    assert "The map was located on" in errors


def test_merge(vfl_command, model, tmp_path):
    from peft import PeftModel

    vfl_command("lora-config", "--layers", "1", "--model", model, "--lora", "r=2", "--out", tmp_path / "lora")
    base = AutoModelForImageTextToText.from_pretrained(model)
    adapted = get_peft_model(base, LoraConfig.from_pretrained(tmp_path / "lora"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    adapted.save_pretrained(tmp_path / "adapter")
    code, output, _ = vfl_command("merge", tmp_path / "adapter", "--out", tmp_path / "merged")
    assert code == 0
    assert "merged in float32. Its logits differ" in output
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    fresh = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(model), tmp_path / "adapter")
    ids = torch.arange(5, 12)[None]
    with torch.no_grad():
        torch.testing.assert_close(merged(input_ids=ids).logits, fresh(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    code, _, errors = vfl_command("merge", tmp_path / "adapter", "--out", tmp_path / "merged")
    assert code == 2
    assert "Use --overwrite to replace it" in errors
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "float32"
