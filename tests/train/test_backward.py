"""A truncated backward pass gives the gradients of the whole one, touches nothing below, and leaves nothing behind."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel
from trl.models.utils import disable_gradient_checkpointing

from vfl.errors import InputError
from vfl.models.discover import discover
from vfl.train.backward.truncate import truncate

Folder = Callable[[str], Path]
Gradients = dict[str, torch.Tensor]

KINDS = {"off": (False, False), "on": (True, False), "reentrant": (True, True)}
LAYERS = [2, 3]  # of four or five

families = pytest.mark.parametrize("family", tiny.FAMILIES)
kinds = pytest.mark.parametrize("kind", KINDS)


@cache
def base(folder: Path) -> PreTrainedModel:
    """The model of a folder, read once; what is done to it is done to a copy."""
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float64)


def adapted(folder: Path, layers: Iterable[int] = LAYERS, also: Iterable[str] = (), **options: Any) -> PeftModel:
    """LoRA with random A and B on the linear modules of some decoder layers, and of modules under the names `also`."""
    model = deepcopy(base(folder))
    prefixes = tuple([f"{discover(model).decoder_name}.layers.{layer}." for layer in layers] + list(also))
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Linear) and name.startswith(prefixes)]
    settings = {"r": 4, "target_modules": names, "init_lora_weights": False} | options
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return get_peft_model(model, LoraConfig(**settings), autocast_adapter_dtype=False).train()


@cache
def inputs_of(folder: Path, with_image: bool = True) -> dict[str, torch.Tensor]:
    inputs = AutoProcessor.from_pretrained(folder).apply_chat_template(
        tiny.messages(tiny.picture() if with_image else None),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    inputs.pop("labels", None)  # PaliGemma's are all masked
    inputs = dict(inputs.to(torch.float64))
    return inputs | {"labels": inputs["input_ids"].masked_fill(inputs["input_ids"] < 20, -100)}


def gradients(model: nn.Module, inputs: dict[str, torch.Tensor]) -> Gradients:
    """Of all trained weights, for one step from the same random state."""
    model.zero_grad()
    torch.manual_seed(1)
    model(**inputs, use_cache=False).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def untruncated(model: PeftModel, inputs: dict[str, torch.Tensor]) -> Gradients:
    """As Trainer and TRL do it: checkpointing everywhere, and inputs that require grad."""
    checkpoint_everything(model)
    model.enable_input_require_grads()
    return gradients(model, inputs)


def checkpoint_everything(model: PeftModel) -> None:
    """Transformers' own checkpointing, under its name before and since 5.23."""
    base = model.get_base_model()
    word = "activation" if hasattr(base, "activation_checkpointing_enable") else "gradient"
    switch_on = getattr(base, f"{word}_checkpointing_enable")
    switch_on(**{f"{word}_checkpointing_kwargs": {"use_reentrant": False}})


def largest_difference(ours: Gradients, expected: Gradients) -> float:
    """Relative to the largest entry of each gradient."""
    assert ours.keys() == expected.keys()
    assert all(expected[name].abs().max() > 0 for name in expected)
    return max(float((ours[name] - expected[name]).abs().max() / expected[name].abs().max()) for name in expected)


@pytest.fixture(scope="module")
def expected(tiny_folder: Folder) -> Callable[[str], Gradients]:
    return cache(lambda family: untruncated(adapted(tiny_folder(family)), inputs_of(tiny_folder(family))))


@families
@kinds
def test_gradients_equal_those_of_the_untruncated_pass(
    family: str, kind: str, tiny_folder: Folder, expected: Callable[[str], Gradients]
) -> None:
    model = adapted(tiny_folder(family))
    with truncate(model, *KINDS[kind]) as truncation:
        ours = gradients(model, inputs_of(tiny_folder(family)))
    assert truncation.lowest == 2
    assert largest_difference(ours, expected(family)) < 1e-12


@families
@kinds
def test_frozen_layers_and_tower_run_forward_only(family: str, kind: str, tiny_folder: Folder) -> None:
    """Each module's calls are counted, and every output before the lowest adapted layer is looked at."""
    model = adapted(tiny_folder(family))
    parts = discover(model.get_base_model())
    names = {module: name for name, module in parts.body.named_modules()}
    decoder = names[parts.decoder]
    around = {module for module, name in names.items() if f"{decoder}.".startswith(f"{name}." if name else "")}
    above = {m for layer in [*parts.layers[2:], parts.norm] for m in layer.modules()}
    calls: Counter[nn.Module] = Counter()

    def record(module: nn.Module, args: Any, output: Any) -> None:
        calls[module] += 1
        if module not in above:
            assert all(not tensor.requires_grad and tensor.grad_fn is None for tensor in tensors(output)), names[module]

    for module in names:
        if module not in around:
            module.register_forward_hook(record)
    inputs = inputs_of(tiny_folder(family))
    with truncate(model, *KINDS[kind]):
        loss = model(**inputs, use_cache=False).loss
        forward = calls.copy()
        loss.backward()
    in_backward = calls - forward
    assert set(in_backward) <= above
    for index, layer in enumerate(parts.layers):
        assert forward[layer.self_attn] == 1
        assert in_backward[layer.self_attn] == (1 if index >= 2 and kind != "off" else 0)


def tensors(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from tensors(value)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3"])
@pytest.mark.parametrize("kind", ["on", "reentrant"])
def test_dropout_is_the_same_when_recomputed(family: str, kind: str, tiny_folder: Folder) -> None:
    model, inputs = adapted(tiny_folder(family), lora_dropout=0.5), inputs_of(tiny_folder(family))
    without, after = gradients(model, inputs), torch.get_rng_state()
    with truncate(model, *KINDS[kind]):
        ours = gradients(model, inputs)
    assert torch.equal(after, torch.get_rng_state())
    assert largest_difference(ours, without) < 1e-12


def state_of(model: nn.Module) -> list[Any]:
    return [
        (name, sorted(vars(module)), list(module._forward_hooks), list(module._forward_pre_hooks))
        for name, module in model.named_modules()
    ]


@kinds
def test_nothing_is_left_on_the_model(kind: str, tiny_folder: Folder) -> None:
    model, inputs = adapted(tiny_folder("qwen3_vl")), inputs_of(tiny_folder("qwen3_vl"))
    before = state_of(model)
    with truncate(model, *KINDS[kind]) as truncation:
        assert state_of(model) != before
        gradients(model, inputs)
    truncation.remove()
    assert state_of(model) == before


@kinds
@pytest.mark.parametrize("layer", [0, 3])
def test_nothing_is_left_on_the_model_after_a_failed_step(kind: str, layer: int, tiny_folder: Folder) -> None:
    model, inputs = adapted(tiny_folder("qwen3_vl")), inputs_of(tiny_folder("qwen3_vl"))

    def fail(*_: Any) -> None:
        raise RuntimeError("no memory left")

    discover(model.get_base_model()).layers[layer].mlp.register_forward_hook(fail)
    before = state_of(model)
    with pytest.raises(RuntimeError, match="no memory left"), truncate(model, *KINDS[kind]):
        gradients(model, inputs)
    assert state_of(model) == before


ALSO = {
    "qwen3_vl": "model.visual.blocks.1.",
    "llava": "model.vision_tower.encoder.layers.0.",
    "internvl": "model.multi_modal_projector.",
}


@pytest.mark.parametrize("family", ALSO)
@kinds
@pytest.mark.parametrize("with_image", [True, False])
def test_adapted_towers_get_their_gradients(family: str, kind: str, with_image: bool, tiny_folder: Folder) -> None:
    """Then nothing is cut off, and a batch without pictures trains the decoder layers all the same."""
    model = adapted(tiny_folder(family), also=[ALSO[family]])
    inputs = inputs_of(tiny_folder(family), with_image)
    towers = [name for name, p in model.named_parameters() if p.requires_grad and ALSO[family] in name]
    assert towers
    if not with_image:
        for name in towers:
            model.get_parameter(name).requires_grad = False
    whole = gradients(model, inputs)
    for name in towers:
        model.get_parameter(name).requires_grad = True
    with truncate(model, *KINDS[kind]) as truncation:
        model.zero_grad()
        model(**inputs, use_cache=False).loss.backward()
    assert truncation.lowest == 0
    assert truncation.layers == tuple(LAYERS)
    assert list(truncation.below) == [".".join(ALSO[family].split(".")[:2])]
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert largest_difference(ours, whole) < 1e-12


def test_the_log_says_what_decides_the_cost(tiny_folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="vfl.train.backward.truncate")
    truncate(adapted(tiny_folder("llava")), checkpointing=True)
    assert "layer 2, decides the cost: the backward pass covers 3 of 5 decoder layers" in caplog.text
    truncate(adapted(tiny_folder("llava"), also=["model.multi_modal_projector."]), checkpointing=False)
    assert (
        "model.multi_modal_projector before them, which decides the cost: the backward pass covers all 5" in caplog.text
    )


def test_trained_embeddings_and_heads_count_where_they_stand(tiny_folder: Folder) -> None:
    embedding = truncate(adapted(tiny_folder("llava"), modules_to_save=["embed_tokens"]), checkpointing=False)
    assert embedding.below == ("model.language_model.embed_tokens",)
    assert embedding.lowest == 0
    head = truncate(adapted(tiny_folder("llava"), modules_to_save=["lm_head"]), checkpointing=False)
    assert head.below == ()
    assert head.lowest == 2


@kinds
def test_trainers_that_pause_checkpointing_do_not_switch_on_the_rest(kind: str, tiny_folder: Folder) -> None:
    """TRL's DPO does so around the pass of its reference model, in each step."""
    model, inputs = adapted(tiny_folder("llava")), inputs_of(tiny_folder("llava"))
    gradients(model, inputs)  # Transformers installs hooks of its own in a first pass
    with truncate(model, *KINDS[kind]):
        before = state_of(model)
        with torch.no_grad(), disable_gradient_checkpointing(model):
            model(**inputs)
        assert state_of(model) == before


@kinds
def test_answers_generated_between_steps_stay_the_same(kind: str, tiny_folder: Folder) -> None:
    """Checkpointed layers would drop their keys and values."""
    model, inputs = adapted(tiny_folder("llava")).eval(), inputs_of(tiny_folder("llava"))
    prompt = {name: value for name, value in inputs.items() if name != "labels"}
    expected = model.generate(**prompt, max_new_tokens=5, do_sample=False)
    with truncate(model, *KINDS[kind]):
        for mode in (False, True):
            model.train(mode)
            assert torch.equal(model.generate(**prompt, max_new_tokens=5, do_sample=False), expected)


def test_hooks_that_would_undo_it_are_refused(tiny_folder: Folder) -> None:
    model, inputs = adapted(tiny_folder("llava")), inputs_of(tiny_folder("llava"))
    model.enable_input_require_grads()
    with truncate(model, checkpointing=True), pytest.raises(InputError, match="layer 2 requires grad, though nothing"):
        gradients(model, inputs)


def test_layers_are_as_they_were_afterwards(tiny_folder: Folder) -> None:
    model = adapted(tiny_folder("qwen2_5_vl"))
    layers = discover(model.get_base_model()).layers
    layers[-1].forward = own = layers[-1].forward  # as accelerate sets it
    with truncate(model, checkpointing=True):
        assert layers[-1].forward is not own
    assert layers[-1].forward is own
    assert not any("forward" in vars(layer) for layer in layers[:-1])


def test_a_copy_of_a_checkpointed_model_runs_its_own_weights(tiny_folder: Folder) -> None:
    model, inputs = adapted(tiny_folder("qwen2_5_vl")), inputs_of(tiny_folder("qwen2_5_vl"))
    with truncate(model, checkpointing=True):
        twin = deepcopy(model)
        with torch.no_grad():
            discover(twin.get_base_model()).layers[-1].input_layernorm.weight.zero_()
        assert largest_difference(gradients(twin, inputs), gradients(model, inputs)) > 0.01


def test_checkpointing_by_the_trainer_is_refused(tiny_folder: Folder) -> None:
    model = adapted(tiny_folder("llava"))
    checkpoint_everything(model)
    with pytest.raises(InputError, match="already on for the whole model"):
        truncate(model, checkpointing=True)


def test_a_model_without_trained_layers_is_refused(tiny_folder: Folder) -> None:
    model = adapted(tiny_folder("llava"))
    model.requires_grad_(False)
    with pytest.raises(InputError, match="all of its weights are frozen"):
        truncate(model, checkpointing=False)
    model.get_base_model().get_output_embeddings().requires_grad_(True)
    with pytest.raises(InputError, match="only its output head"):
        truncate(model, checkpointing=False)


def test_layers_that_cannot_be_checkpointed_are_refused(tiny_folder: Folder) -> None:
    class Plain(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.self_attn = layer.self_attn

    model = adapted(tiny_folder("llava"))
    base: PreTrainedModel = model.get_base_model()
    layers = discover(base).layers
    layers[0] = Plain(layers[0])
    with pytest.raises(InputError, match=r"class Plain can't be checkpointed.*checkpointing: off"):
        truncate(model, checkpointing=True)
    truncate(model, checkpointing=False).remove()
