"""A model in training is asked something and is then as it was: modes, random states, what it keeps between calls."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from vfl.models.vlm import VLM

# What a module remembers of its last forward and reads at the next: Qwen's models of their last prompt.
_KEPT_BETWEEN_CALLS = ("rope_deltas",)


@contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Whatever runs inside, the model and the random generators are afterwards as before, exceptions included.

    Restored are each module's training mode, the random states of torch (all devices), numpy and random, and the rope
    deltas that Qwen models keep from their last prompt. Weights and gradients are not looked after.
    """
    modes = [(module, module.training) for module in model.modules()]
    remembered = [
        (vars(module), name, vars(module)[name])
        for module in model.modules()
        for name in _KEPT_BETWEEN_CALLS
        if name in vars(module)
    ]
    # numpy's global state is not ours to use, but a collator's, a metric's or a processor's library may draw from it.
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for attributes, name, value in remembered:
            attributes[name] = value
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


@contextmanager
def untouched(vlm: VLM) -> Iterator[None]:
    """The model in evaluation mode and without gradients; afterwards everything is `as_it_was`.

    Gradient checkpointing stays as it is: it acts only in training mode.
    """
    with as_it_was(vlm.model), torch.no_grad():
        vlm.model.eval()
        yield
