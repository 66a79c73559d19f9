"""A model in training is asked something and is then as it was: modes, random states, what it keeps between calls."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from transformers import GenerationConfig

from vfl.models.vlm import VLM


@contextmanager
def untouched(vlm: VLM) -> Iterator[None]:
    """The model in evaluation mode and without gradients; afterwards everything is as before, exceptions included.

    Restored are each module's training mode, the random states of torch (all devices), numpy and random, and the rope
    deltas that Qwen models keep from their last prompt. Gradient checkpointing stays as it is: it acts only in training
    mode.
    """
    modes = [(module, module.training) for module in vlm.model.modules()]
    body = vars(vlm.parts.body)
    kept = {name: body[name] for name in ("rope_deltas",) if name in body}
    # numpy's global state is not ours to use, but a metric's or a processor's library may draw from it.
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            vlm.model.eval()
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        body.update(kept)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


@contextmanager
def greedy(vlm: VLM) -> Iterator[GenerationConfig]:
    """The model's generation config replaced by one that decodes greedily and holds nothing else.

    `generate` fills what its caller leaves open from the model's own config, and checkpoints ship penalties and
    sampling parameters there (Qwen2.5-VL a repetition penalty): answers would not be the model's most likely ones.
    """
    ends = sorted(vlm.end_ids())
    pad = vlm.tokenizer.pad_token_id
    before = vlm.model.generation_config
    config = GenerationConfig(eos_token_id=ends or None, pad_token_id=ends[0] if pad is None and ends else pad or 0)
    vlm.model.generation_config = config
    try:
        yield config
    finally:
        vlm.model.generation_config = before
