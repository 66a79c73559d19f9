"""What is checked on a model at load, on a small made image (or sound), before any result relies on it.

1. Our logits from the last layer's output equal the model's own.
2. Vision states do not change when only later text changes (then they are computed once per image).
3. Going on from a prefilled image equals a full forward.
"""

import logging

import torch

from vfl.engine.decoder_inputs import reaching_decoder
from vfl.engine.image_cache import slots_of
from vfl.engine.layer_trace import trace_prompt, watch
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

logger = logging.getLogger(__name__)

# Relative to the largest logit: rounding of one forward at this precision, with room for another order of sums.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 6e-2}


@torch.no_grad()
def check(vlm: VLM) -> None:
    """Check the model and set its facts: soft cap, first position, prefix sharing.

    Raises:
        InputError: when the model's own logits can't be reproduced, or its prompt has no vision tokens.
    """
    question = f"What is in the {vlm.medium.name}?"
    encoded = vlm.ask(question, vlm.medium.noise())
    decoder_positions = _positions_of_decoder(vlm, encoded)
    if decoder_positions is not None and decoder_positions.ndim == 2:
        vlm.first_position = int(decoder_positions[0, 0])
        encoded = vlm.ask(question, vlm.medium.noise())
    _check_logits(vlm, encoded)
    if vlm.family.prefix_lm:
        vlm.shares_prefix = False
        vlm.notes.append("prefix-LM: vision states depend on the question, so every experiment runs exact full passes")
        return
    problem = _sharing_problem(vlm, encoded)
    if problem:
        vlm.shares_prefix = False
        vlm.notes.append(f"the image's states can't be shared ({problem}); every experiment runs exact full passes")


def tolerance(vlm: VLM, logits: torch.Tensor) -> float:
    """Largest difference between equal computations at the model's precision."""
    return _TOLERANCE[vlm.dtype] * max(1.0, float(logits.abs().max()))


def _positions_of_decoder(vlm: VLM, encoded: Encoded) -> torch.Tensor | None:
    """The position ids that the model itself gives its decoder, or None where it leaves them to the decoder."""
    arguments = reaching_decoder(vlm, encoded.inputs)
    if arguments is None:
        raise InputError(
            f"{type(vlm.model).__name__} did not call {vlm.parts.decoder_name} in a forward pass, so its layers can't "
            "be followed. The model is not supported."
        )
    return arguments.get("position_ids")


def _check_logits(vlm: VLM, encoded: Encoded) -> None:
    with watch(vlm.layers) as watched:
        expected = vlm.model(**encoded.inputs, use_cache=False).logits[:, -1].float()
    hidden = watched.outputs[-1][:, -1]
    if not _close(vlm, vlm.logits(hidden).float(), expected):
        cap = getattr(vlm.model.config.get_text_config(decoder=True), "final_logit_softcapping", None)
        if cap is not None:
            object.__setattr__(vlm.parts, "softcap", float(cap))
    difference = (vlm.logits(hidden).float() - expected).abs().max()
    if not difference <= tolerance(vlm, expected):
        raise InputError(
            f"The logits of {type(vlm.model).__name__} are not its head over its final norm (difference "
            f"{float(difference):.3g}): its output is computed in a way that is not supported."
        )


def _sharing_problem(vlm: VLM, encoded: Encoded) -> str:
    """Empty when the prefix can be shared, else what differed."""
    slots = slots_of(encoded.spans, vlm.device)
    other_ids = encoded.input_ids.clone()
    end = encoded.spans[-1].end
    other_ids[:, end:-1] = other_ids[:, end:-1].flip(1)  # other text of equal length, special tokens included
    if torch.equal(other_ids, encoded.input_ids):
        other_ids[:, -1] = vlm.tokenizer.eos_token_id or 0
    other = Encoded(**{**vars(encoded), "inputs": {**encoded.inputs, "input_ids": other_ids}})
    first, second = trace_prompt(vlm, encoded), trace_prompt(vlm, other)
    for layer_idx in range(vlm.num_layers):
        ours, theirs = first.keys[layer_idx][:, :, slots].float(), second.keys[layer_idx][:, :, slots].float()
        if not (ours - theirs).abs().max() <= _TOLERANCE[vlm.dtype] * ours.abs().max():
            return f"its keys at layer {layer_idx} change with later text"
    shared = sweep(vlm, encoded, [Plan.own()]).logits[0]
    full = vlm.logits(first.hidden[-1][:, -1])[0].float().cpu()
    difference = float((shared.float() - full).abs().max())
    if not difference <= tolerance(vlm, full):
        return f"going on from a prefilled image differs from a full pass by {difference:.3g} in the logits"
    return ""


def _close(vlm: VLM, ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= tolerance(vlm, theirs))
