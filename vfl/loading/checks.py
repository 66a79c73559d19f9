"""What is checked on a model at load, on a small made image (or sound), before any result relies on it.

1. Our position ids equal those that the model hands its own decoder.
2. Our logits from the last layer's output equal the model's own.
3. Vision states do not change when only later text changes (then they are computed once per image).
4. Going on from a prefilled image equals a full forward.
5. With every layer swapped for another image the logits are that image's own.
6. Two images prefilled in one pass give what each gives alone (else each is prefilled alone).
"""

import logging

import torch

from vfl.engine.decoder_inputs import reaching_decoder
from vfl.engine.image_cache import ImageCache, prefill, slots_of
from vfl.engine.joint_prefill import prefill_all
from vfl.engine.layer_trace import LayerTrace, trace_prompt, watch
from vfl.engine.memory import is_out_of_memory
from vfl.engine.plan import Plan
from vfl.engine.row_start import RowStart, row_start
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

logger = logging.getLogger(__name__)

# Relative to the largest logit: rounding of one forward at this precision, with room for another order of sums.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 6e-2}


def check(vlm: VLM) -> None:
    """Check the model and set its facts: soft cap, first position, prefix sharing.

    Raises:
        InputError: when the model's own positions or logits can't be reproduced, its prompt has no vision tokens, or
            it fails in a way that nobody foresaw; the message names its class.
    """
    try:
        _check(vlm)
    except InputError:
        raise
    except Exception as error:  # of code that is not ours: classes, processors and templates of any origin
        if is_out_of_memory(error):
            raise
        lines = str(error).strip().splitlines()
        raise InputError(
            f"{type(vlm.model).__name__} ({vlm.model_id}) failed the check at load with {type(error).__name__}: "
            f"{lines[0] if lines else 'no message'}. It is not supported as it is; `vfl models` lists the tested "
            "families."
        ) from error


@torch.no_grad()
def _check(vlm: VLM) -> None:
    question = f"What is in the {vlm.medium.name}?"
    encoded = vlm.ask(question, vlm.medium.noise(0))
    decoder_positions = _positions_of_decoder(vlm, encoded)
    if decoder_positions is not None and decoder_positions.ndim == 2:
        vlm.first_position = int(decoder_positions[0, 0])
        encoded = vlm.ask(question, vlm.medium.noise(0))
    _check_positions(vlm, encoded, decoder_positions)
    _check_logits(vlm, encoded)
    other = vlm.ask(question, vlm.medium.noise(1))
    alone: list[ImageCache] = []
    if vlm.family.prefix_lm:
        vlm.shares_prefix = False
        vlm.notes.append("prefix-LM: vision states depend on the question, so every experiment runs exact full passes")
    else:
        trace = trace_prompt(vlm, encoded)
        problem = _text_problem(vlm, encoded, trace)
        if not problem:
            alone = [prefill(vlm, encoded), prefill(vlm, other)]
            start = row_start(vlm, encoded, own=alone[0])
            problem = _sharing_problem(vlm, start, trace) or _swap_problem(vlm, start, other, alone[1])
        if problem:
            vlm.shares_prefix = False
            vlm.notes.append(f"the image's states can't be shared ({problem}); every experiment runs exact full passes")
    if not vlm.shares_prefix:
        alone = [prefill(vlm, encoded), prefill(vlm, other)]
        if problem := _swap_problem(vlm, row_start(vlm, encoded), other, alone[1]):
            raise InputError(f"{type(vlm.model).__name__} is not supported: {problem}.")
    vlm.joins_images = _joins(vlm, [encoded, other], alone)
    if not vlm.joins_images:
        vlm.notes.append("several images in one pass don't come out as each alone, so each is prefilled alone")


def tolerance(vlm: VLM, logits: torch.Tensor) -> float:
    """Largest difference between equal computations at the model's precision."""
    return _TOLERANCE[_computing(vlm)] * max(1.0, float(logits.abs().max()))


def _computing(vlm: VLM) -> torch.dtype:
    """The shortest type that a forward computes in: bitsandbytes' 8-bit products take float16 inputs."""
    eight_bits = getattr(vlm.model, "is_loaded_in_8bit", False)
    return torch.float16 if eight_bits and vlm.dtype in (torch.float32, torch.float64) else vlm.dtype


def _positions_of_decoder(vlm: VLM, encoded: Encoded) -> torch.Tensor | None:
    """The position ids that the model itself gives its decoder, or None where it leaves them to the decoder."""
    arguments = reaching_decoder(vlm, encoded.inputs)
    if arguments is None:
        raise InputError(
            f"{type(vlm.model).__name__} did not call {vlm.parts.decoder_name} in a forward pass, so its layers can't "
            "be followed. The model is not supported."
        )
    return arguments.get("position_ids")


def _check_positions(vlm: VLM, encoded: Encoded, theirs: torch.Tensor | None) -> None:
    ours = encoded.positions
    if theirs is None:  # the decoder counts them itself, from 0
        theirs = torch.arange(encoded.length, device=ours.device)[None]
    theirs = theirs.to(ours.device)
    if theirs.ndim == 3 and theirs.shape[0] == 4:
        theirs = theirs[1:]  # Qwen puts the plain count, which only masks read, before time, height and width
    if theirs.shape[-1] != ours.shape[-1] or not bool((theirs == ours).all()):
        raise InputError(
            f"{type(vlm.model).__name__} hands its decoder other position ids {tuple(theirs.shape)} than those found "
            f"on {type(vlm.parts.body).__name__} {tuple(ours.shape)}: its rotary positions are computed in a way that "
            "is not supported."
        )


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


def _text_problem(vlm: VLM, encoded: Encoded, trace: LayerTrace) -> str:
    """Empty when vision states are the same before other text, else what differed."""
    slots = slots_of(encoded.spans, vlm.device)
    other_ids = encoded.input_ids.clone()
    end = encoded.spans[-1].end
    other_ids[:, end:-1] = other_ids[:, end:-1].flip(1)  # other text of equal length, special tokens included
    if torch.equal(other_ids, encoded.input_ids):
        other_ids[:, -1] = vlm.tokenizer.eos_token_id or 0
    after_other = trace_prompt(vlm, Encoded(**{**vars(encoded), "inputs": {**encoded.inputs, "input_ids": other_ids}}))
    for layer_idx in range(vlm.num_layers):
        ours, theirs = (traced.keys[layer_idx][:, :, slots].float() for traced in (trace, after_other))
        if not (ours - theirs).abs().max() <= _TOLERANCE[_computing(vlm)] * ours.abs().max():
            return f"its keys at layer {layer_idx} change with later text"
    return ""


def _sharing_problem(vlm: VLM, start: RowStart, trace: LayerTrace) -> str:
    """Empty when going on from the prefilled image gives what a full pass gives, else what differed."""
    shared = sweep(vlm, start.encoded, [Plan.own()], start=start).logits[0]
    full = vlm.logits(trace.hidden[-1][:, -1])[0].float().cpu()
    difference = float((shared.float() - full).abs().max())
    if not difference <= tolerance(vlm, full):
        return f"going on from a prefilled image differs from a full pass by {difference:.3g} in the logits"
    return ""


def _swap_problem(vlm: VLM, start: RowStart, other: Encoded, image: ImageCache) -> str:
    """Empty when a row that reads another image at every layer gives that image's own logits, else what differed."""
    if other.spans != start.encoded.spans:
        return "two images of equal size give vision tokens at different positions"
    swap = Plan.swap(range(vlm.num_layers), image)
    swapped = sweep(vlm, start.encoded, [swap], start=start).logits[0].double()
    expected = vlm.model(**other.inputs, use_cache=False).logits[0, -1].double().cpu()
    difference = float((swapped - expected).abs().max())
    # Eager attention takes its softmax in float32, whatever the model computes in.
    limit = max(tolerance(vlm, expected), 1e-5 * max(1.0, float(expected.abs().max())))
    if difference <= limit:
        return ""
    return f"with every layer swapped for another image its logits differ from that image's own by {difference:.3g}"


def _joins(vlm: VLM, prompts: list[Encoded], alone: list[ImageCache]) -> bool:
    """Whether prefilling prompts together gives what prefilling each alone gave."""
    try:
        together = prefill_all(vlm, prompts)
    except Exception as error:  # code that is not ours may not take several prompts; each alone works, as was seen
        if is_out_of_memory(error):
            raise
        logger.debug("%s does not prefill several images at once", type(vlm.model).__name__, exc_info=True)
        return False
    for ours, theirs in zip(together, alone, strict=True):
        for which in ("keys", "values"):
            for joined, own in zip(getattr(ours, which), getattr(theirs, which), strict=True):
                if not (joined - own).abs().max() <= _TOLERANCE[_computing(vlm)] * max(1.0, float(own.abs().max())):
                    return False
    return True


def _close(vlm: VLM, ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= tolerance(vlm, theirs))
