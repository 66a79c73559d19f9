"""The backward pass ends at the lowest adapted layer, and only what is in it is checkpointed.

Autograd builds no graph below the first trained weight, unless something makes the embeddings require grad. That is
what Transformers and TRL do when `TrainingArguments.gradient_checkpointing` meets PEFT (`enable_input_require_grads`,
which hooks the patch embedding of the vision tower too): the frozen tower and every layer below the adapted ones are
then recomputed and differentiated for nothing. So that option stays off, and this module checkpoints the layers itself.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle
from transformers.modeling_layers import GradientCheckpointingLayer

from vfl.errors import InputError
from vfl.io.layers import layer_list
from vfl.models.discover import Parts, discover

logger = logging.getLogger(__name__)

FLAG = "gradient_checkpointing"  # Transformers' own, of a module


@dataclass
class Truncation:
    """What a truncated backward pass covers; `remove()`, or the end of a `with`, takes it off the model again.

    Attributes:
        num_layers: decoder layers of the model.
        layers: decoder layers that hold trained weights, ascending.
        below: what is trained before the first decoder layer (such as "model.visual"), empty if nothing is.
        checkpointing: whether layers in the backward pass recompute their activations.
    """

    num_layers: int
    layers: tuple[int, ...]
    below: tuple[str, ...]
    checkpointing: bool
    handles: list["RemovableHandle | _Checkpointing"] = field(default_factory=list, repr=False)

    @property
    def lowest(self) -> int:
        """The lowest decoder layer in the backward pass: it decides the cost."""
        return 0 if self.below else self.layers[0]

    def __str__(self) -> str:
        recompute = "recomputed in the backward pass (checkpointing on)" if self.checkpointing else "kept in memory"
        trained = f"Trained weights: decoder layers {layer_list(self.layers)} of {self.num_layers}"
        if self.below:
            return (
                f"{trained}, and {', '.join(self.below)} before them, which decides the cost: the backward pass covers "
                f"all {self.num_layers} decoder layers and goes on to there. Activations are {recompute}."
            )
        tower = "the vision tower runs"
        frozen = f"layers {layer_list(range(self.lowest))} and the vision tower run" if self.lowest else tower
        return (
            f"{trained}. The lowest, layer {self.lowest}, decides the cost: the backward pass covers "
            f"{self.num_layers - self.lowest} of {self.num_layers} decoder layers; {frozen} forward only. "
            f"Activations are {recompute}."
        )

    def remove(self) -> None:
        """Take everything off the model; may be called twice."""
        while self.handles:
            self.handles.pop().remove()

    def __enter__(self) -> "Truncation":
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def truncate(peft_model: PeftModel, checkpointing: bool, reentrant: bool = False) -> Truncation:
    """Let the backward pass of `peft_model` end at its lowest trained layer.

    Gradients are those of the untruncated pass. Layers are checkpointed only in training, only while gradients are
    taken, and only where the backward pass comes by; from outside the model looks as if nothing were checkpointed, so
    that no trainer switches the rest on (TRL's DPO would, after each pass of its reference).

    Args:
        peft_model: the model with its adapter; the trainer's own `gradient_checkpointing` must be off.
        checkpointing: recompute the activations of the layers in the backward pass instead of keeping them.
        reentrant: the older kind of checkpointing, which DeepSpeed's ZeRO-3 needs.

    Raises:
        InputError: when nothing is trained, when checkpointing is on already or the layers can't be checkpointed; and
            in a training step, when something else made frozen layers require grad.
    """
    model = peft_model.get_base_model()
    parts = discover(model)
    layers, below = _trained(model, parts)
    if any(getattr(module, FLAG, False) for module in model.modules()):  # as Transformers asks it
        raise InputError(
            "Gradient checkpointing is already on for the whole model, frozen layers included. Leave "
            "gradient_checkpointing of the trainer's arguments False and set `checkpointing: on` instead."
        )
    truncation = Truncation(len(parts.layers), layers, below, checkpointing)
    if checkpointing:
        truncation.handles.extend(_checkpoint(model, parts, reentrant))
    if not below:
        lowest = parts.layers[truncation.lowest]
        truncation.handles.append(lowest.register_forward_pre_hook(_must_be_frozen(truncation.lowest)))
    logger.info("%s", truncation)
    return truncation


def _trained(model: nn.Module, parts: Parts) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(decoder layers with trained weights, modules before the first layer with trained weights)."""
    prefix = f"{parts.decoder_name}.layers."
    # What comes after the last layer needs no backward pass through it. A head that is tied to the embeddings is listed
    # under both names, and the embeddings count.
    after = {id(parameter) for module in (parts.norm, parts.head) for parameter in module.parameters()}
    embeddings = {id(parameter) for parameter in model.get_input_embeddings().parameters()}  # type: ignore[operator]
    layers: set[int] = set()
    below: set[str] = set()
    later = False
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith(prefix):
            layers.add(int(name.removeprefix(prefix).partition(".")[0]))
        elif id(parameter) in after - embeddings:
            later = True
        else:
            below.add(_part(name, parts))
    if not (layers or below):
        what = "only its output head is" if later else "all of its weights are frozen"
        raise InputError(f"No decoder layer of the model is trained: {what}. Add LoRA to at least one decoder layer.")
    return tuple(sorted(layers)), tuple(sorted(below))


def _part(name: str, parts: Parts) -> str:
    """What a parameter before the first layer belongs to: "model.visual.blocks.0.attn..." -> "model.visual"."""
    around = f"{parts.decoder_name}."
    if not name.startswith(around):
        around = around[: parts.decoder_name.rfind(".") + 1]
    return around + name.removeprefix(around).partition(".")[0]


def _must_be_frozen(layer: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def check(module: nn.Module, args: tuple[Any, ...]) -> None:
        if module.training and torch.is_grad_enabled() and any(_requires_grad(value) for value in args):
            raise InputError(
                f"What enters decoder layer {layer} requires grad, though nothing before it is trained: the backward "
                "pass would go through all frozen layers. Hooks of enable_input_require_grads are on the model; set "
                "gradient_checkpointing to False in the trainer's arguments (and use_gradient_checkpointing in "
                "prepare_model_for_kbit_training)."
            )

    return check


def _checkpoint(model: nn.Module, parts: Parts, reentrant: bool) -> list["_Checkpointing"]:
    """Each call of a layer through which gradients pass is checkpointed, in the decoder and in the towers."""
    plain = {type(layer).__name__ for layer in parts.layers if not isinstance(layer, GradientCheckpointingLayer)}
    if plain:
        raise InputError(
            f"Decoder layers of class {', '.join(sorted(plain))} can't be checkpointed (they are no "
            "GradientCheckpointingLayer of Transformers). Set `checkpointing: off`."
        )
    return [
        _Checkpointing(module, reentrant)
        for module in model.modules()
        if isinstance(module, GradientCheckpointingLayer)
    ]


class _Checkpointing:
    """A layer whose `forward` is checkpointed in a training step, until `remove()`.

    Not by Transformers' own flag of a layer: before 5.23 it was read ahead of a module's hooks, and since then behind
    them, so that no hook can raise it in time for both.
    """

    def __init__(self, layer: nn.Module, reentrant: bool) -> None:
        self.layer = layer
        self._before = plain = vars(layer).get("forward")  # as accelerate replaces it

        def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            run = partial(plain or partial(type(module).forward, module), **kwargs)
            if kwargs.get("past_key_values") is not None:
                return run(*args)  # after the image (vfl.train.backward.after_image): it would lose its cache
            reached = any(_requires_grad(value) for value in args)
            # Asked at each call: a run may freeze layers on its way.
            trained = reached or any(parameter.requires_grad for parameter in module.parameters())
            if not (module.training and torch.is_grad_enabled() and trained):
                return run(*args)
            if reentrant and not reached:
                # It sees a graph only through its inputs: without one these weights would get no gradient.
                states, *rest = args
                args = (states.detach().requires_grad_(), *rest)
            return checkpoint(run, *args, use_reentrant=reentrant)

        # A method, so that a copy of the layer runs the copy (unless its `forward` had been replaced before).
        self._own = layer.forward = MethodType(forward, layer)

    def remove(self) -> None:
        """The layer as it was, unless something else has replaced its `forward` since."""
        if vars(self.layer).get("forward") is self._own:
            del self.layer.forward
            if self._before is not None:
                self.layer.forward = self._before


def _requires_grad(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad
