"""The ways to train that are compared, each a real SFTTrainer on the same frozen weights."""

import contextlib
import copy
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, TrainerCallback
from trl import SFTConfig, SFTTrainer

from bench.training.model import Shape, processor, row
from vfl.io.layers import parse_layers
from vfl.train.adapter.lora import build_lora
from vfl.train.backward.truncate import truncate

NUM_LAYERS = 28
# "all", the paper's preset for this model, its upper half, and the last four.
LAYERS = {"all": range(NUM_LAYERS), **{name: parse_layers(name) for name in ("10-17,20-23", "20-23", "24-27")}}


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        layers: a key of LAYERS.
        truncated: by this package; otherwise as TRL does it, which with checkpointing (its default) has inputs require
            grad. Without, autograd itself ends at the lowest trained layer, and the two are the same.
        checkpointing: whether activations are recomputed.
    """

    layers: str
    truncated: bool
    checkpointing: bool = True

    @property
    def name(self) -> str:
        """As in the table."""
        whose = "here" if self.truncated else "TRL"
        return f"{whose}, {self.layers}" + ("" if self.checkpointing else ", no checkpointing")


REFERENCE = Arm("all", truncated=False)
ARMS = [
    *(Arm(layers, truncated=False) for layers in LAYERS),
    *(Arm(layers, truncated=False, checkpointing=False) for layers in LAYERS),
    *(Arm(layers, truncated=True) for layers in LAYERS),
    *(Arm(layers, truncated=True, checkpointing=False) for layers in LAYERS),
]


@dataclass
class Step:
    """A forward and backward pass of an arm, to be called again and again.

    Attributes:
        arm: the way to train.
        trainer: its trainer, with the adapter on its model, set up by its `train()`.
        batch: what the trainer's own data loader gave.
    """

    arm: Arm
    trainer: SFTTrainer
    batch: dict[str, Any] = field(repr=False)

    def __call__(self) -> torch.Tensor:
        """The loss of one training step without the optimizer, gradients of the step before dropped."""
        self.trainer.model.zero_grad()
        loss: torch.Tensor = self.trainer.training_step(self.trainer.model_wrapped, dict(self.batch))
        return loss

    def gradients(self) -> dict[str, torch.Tensor]:
        """Of the last step."""
        return {name: p.grad.clone() for name, p in self.trainer.model.named_parameters() if p.grad is not None}


def prepare(arm: Arm, base: PreTrainedModel, shape: Shape, batch: int, folder: Path) -> Step:
    """The trainer of an arm. All arms share the frozen weights of `base`, and the values of their adapters."""
    model = copy.deepcopy(base, {id(parameter): parameter for parameter in base.parameters()})
    on_cpu = base.device.type == "cpu"
    settings: dict[str, Any] = {"use_cpu": True, "bf16": False} if on_cpu else {}
    if arm.truncated or not arm.checkpointing:
        settings["gradient_checkpointing"] = False
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(folder),
            per_device_train_batch_size=batch,
            max_length=None,  # TRL's 1024 would cut longer prompts, and with them image tokens
            report_to="none",
            disable_tqdm=True,
            **settings,
        ),
        processing_class=processor(shape),
        train_dataset=Dataset.from_list([row(shape, seed) for seed in range(batch)]),
        # No dropout, so that gradients can be compared.
        peft_config=build_lora(
            model, LAYERS[arm.layers], {"r": shape.rank, "lora_alpha": shape.rank, "lora_dropout": 0.0}
        ),
    )
    if arm.truncated:
        truncate(trainer.model, arm.checkpointing)
    _randomise(trainer.model)
    trainer.add_callback(_StopBeforeTheFirstStep())
    with contextlib.suppress(_ReadyError):
        trainer.train()  # switches on checkpointing and wraps the model as its arguments say
    trainer.current_gradient_accumulation_steps = 1  # which the loop would set next
    return Step(arm, trainer, next(iter(trainer.get_train_dataloader())))


class _ReadyError(Exception):
    """Everything that comes before the first step is done."""


class _StopBeforeTheFirstStep(TrainerCallback):
    def on_train_begin(self, *_: Any, **__: Any) -> None:
        raise _ReadyError


@torch.no_grad()
def _randomise(model: torch.nn.Module) -> None:
    """LoRA starts with B = 0, and the gradients of A with it; here both are drawn, by name, alike in all arms."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            drawn = torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5
            parameter.copy_(drawn)


def largest_difference(gradients: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Norm of the difference between two sets of gradients, as a share of the norm of the second."""
    assert gradients.keys() == expected.keys()
    difference = sum(float((gradients[name] - gradient).double().square().sum()) for name, gradient in expected.items())
    return (difference / sum(float(gradient.double().square().sum()) for gradient in expected.values())) ** 0.5
