"""The probe step measures what it says, decides by it, and leaves no trace in the run that follows."""

import logging
import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForImageTextToText, AutoProcessor

from vfl.models.discover import discover
from vfl.train.backward.memory import StepMemory, choose_checkpointing, optimizer_bytes, step_memory, untouched_by_step
from vfl.train.backward.truncate import truncate

Folder = Callable[[str], Path]
CPU = torch.device("cpu")
SIDE = 100
SQUARE = SIDE * SIDE * 4  # bytes of a float32 matrix


def adapted(folder: Path, layers: Iterable[int]) -> PeftModel:
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    prefixes = tuple(f"{discover(model).decoder_name}.layers.{layer}." for layer in layers)
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Linear) and name.startswith(prefixes)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return get_peft_model(model, LoraConfig(r=4, target_modules=names, lora_dropout=0.3)).train()


def step_of(model: PeftModel, folder: Path) -> Callable[[], None]:
    """A forward and backward pass that draws from every random generator."""
    inputs = AutoProcessor.from_pretrained(folder).apply_chat_template(
        tiny.messages(tiny.picture()), tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )

    def step() -> None:
        scale = 1 + random.random() + np.random.random()  # noqa: NPY002
        model.train()
        (scale * model(**inputs, labels=inputs["input_ids"], use_cache=False).loss).backward()

    return step


def test_a_chain_keeps_what_its_backward_pass_needs() -> None:
    """Ten sines keep ten matrices besides the weight; the first gradient is one more, and its factor another."""
    weight = torch.ones(SIDE, SIDE, requires_grad=True)

    def step() -> None:
        states = weight
        for _ in range(10):
            states = states.sin()
        states.sum().backward()

    peak = step_memory(step, CPU).peak_bytes
    assert 12 * SQUARE <= peak < 13 * SQUARE
    assert peak == step_memory(step, CPU).peak_bytes


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_chain_keeps_the_ends_and_one_segment(reentrant: bool) -> None:
    weight = torch.ones(SIDE, SIDE, requires_grad=True)

    def segment(states: torch.Tensor) -> torch.Tensor:
        for _ in range(10):
            states = states.sin()
        return states

    def step(checkpointed: bool) -> None:
        states = weight * 1
        for _ in range(10):
            states = checkpoint(segment, states, use_reentrant=reentrant) if checkpointed else segment(states)
        states.sum().backward()

    assert step_memory(lambda: step(False), CPU).peak_bytes > 100 * SQUARE
    assert 20 * SQUARE <= step_memory(lambda: step(True), CPU).peak_bytes <= 24 * SQUARE


def test_views_and_weights_take_nothing() -> None:
    weight = torch.ones(SIDE, SIDE)
    assert step_memory(lambda: weight.t()[2:].unsqueeze(0).expand(5, -1, -1), CPU).peak_bytes == 0
    assert step_memory(lambda: weight.add_(1), CPU).peak_bytes == 0


def test_truncation_and_checkpointing_save_memory(tiny_folder: Folder) -> None:
    folder = tiny_folder("qwen2_5_vl")
    peaks = {}
    for layers in [(0, 1, 2, 3, 4), (3, 4)]:
        for checkpointing in (False, True):
            model = adapted(folder, layers)
            with truncate(model, checkpointing):
                peaks[layers[0], checkpointing] = step_memory(step_of(model, folder), CPU).peak_bytes
    assert peaks[3, False] < peaks[0, False]
    assert peaks[0, True] < peaks[0, False]
    assert peaks[3, True] < peaks[3, False]


def test_the_choice_follows_the_free_memory(tiny_folder: Folder) -> None:
    folder = tiny_folder("llava")
    model = adapted(folder, [3])
    step = step_of(model, folder)
    fits = choose_checkpointing(model, step, CPU)
    assert not fits.checkpointing
    assert fits.memory is not None
    assert fits.memory.peak_bytes > 0
    assert "Checkpointing off: without it a step on the longest batch takes" in fits.reason
    assert choose_checkpointing(model, step, CPU, share=1e-9).checkpointing
    assert choose_checkpointing(model, step, CPU, reserve=2**50).checkpointing
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert 0 < trained < sum(parameter.numel() for parameter in model.parameters())
    assert optimizer_bytes(model) == 12 * trained, "two moments and a copy, in float32"


def test_the_choice_is_about_a_truncated_step(tiny_folder: Folder) -> None:
    folder = tiny_folder("llava")
    model = adapted(folder, [3])
    with truncate(model, checkpointing=False):
        expected = step_memory(step_of(model, folder), CPU).peak_bytes
    model.zero_grad()
    assert choose_checkpointing(model, step_of(model, folder), CPU).memory == StepMemory(
        expected, "peak of the tensors alive at the same time"
    )


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_running_out_of_memory_switches_checkpointing_on(
    error: RuntimeError, tiny_folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    model = adapted(tiny_folder("llava"), [3])
    hooks = [len(module._forward_pre_hooks) for module in model.modules()]

    def step() -> None:
        step_of(model, tiny_folder("llava"))()
        raise error

    choice = choose_checkpointing(model, step, CPU)
    assert choice.checkpointing
    assert choice.memory is None
    assert "Checkpointing on: without it a step on the longest batch ran out of memory" in caplog.text
    assert caplog.records[-1].levelno == logging.WARNING
    assert all(parameter.grad is None for parameter in model.parameters())
    assert hooks == [len(module._forward_pre_hooks) for module in model.modules()]


def test_other_errors_are_not_taken_for_it(tiny_folder: Folder) -> None:
    def step() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        choose_checkpointing(adapted(tiny_folder("llava"), [3]), step, CPU)


def draws() -> tuple[Any, ...]:
    return random.random(), float(np.random.random()), float(torch.rand(()))  # noqa: NPY002


def test_a_step_inside_leaves_no_trace(tiny_folder: Folder) -> None:
    folder = tiny_folder("llava")
    model = adapted(folder, [3]).eval()
    step = step_of(model, folder)
    step()
    model.eval()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert gradients

    def seed() -> None:
        random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002

    seed()
    expected = draws()
    seed()
    with untouched_by_step(model):
        step()
    assert draws() == expected
    assert not any(module.training for module in model.modules())
    assert gradients.keys() == {name for name, p in model.named_parameters() if p.grad is not None}
    assert all(torch.equal(model.get_parameter(name).grad, gradient) for name, gradient in gradients.items())


@pytest.mark.parametrize("share", [0.9, 1e-9])
def test_a_probe_does_not_change_what_is_trained(share: float, tiny_folder: Folder) -> None:
    """Bit for bit, with dropout and with generators that the data draws from."""
    folder = tiny_folder("qwen2_5_vl")

    def trained(probe: bool) -> dict[str, torch.Tensor]:
        model = adapted(folder, [2, 4])
        random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
        step = step_of(model, folder)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
        checkpointing = share < 0.5
        if probe:
            assert choose_checkpointing(model, step, CPU, share=share).checkpointing == checkpointing
        with truncate(model, checkpointing):
            for _ in range(3):
                optimizer.zero_grad()
                step()
                optimizer.step()
        return dict(model.state_dict())

    with_probe, without = trained(True), trained(False)
    assert all(torch.equal(with_probe[name], without[name]) for name in without)


TWO_RANKS = """
import sys, torch
from vfl.train.backward.memory import _on_any_rank
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
print([_on_any_rank(one, torch.device("cpu")) for one in (rank == 1, False, True)])
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_one_rank_that_needs_it_switches_it_on_for_all(tmp_path: Path) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_RANKS, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    for process in started:
        assert process.communicate(timeout=120)[0].splitlines()[-1] == "[True, False, True]"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_allocator_is_asked_on_a_gpu() -> None:
    device = torch.device("cuda")
    weight = torch.ones(1024, 1024, device=device)
    memory = step_memory(lambda: weight * 2, device)
    assert memory.peak_bytes == 4 * 1024 * 1024
    assert "CUDA" in memory.how
