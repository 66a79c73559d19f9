"""Whether a model says the same when the image is run before the answers, looked at on a batch of the run's own."""

from typing import Any

import torch

from vfl.engine.untouched import untouched
from vfl.errors import InputError
from vfl.models.vlm import VLM
from vfl.train.anchors import before
from vfl.train.backward.after_image import after_image


def share_after_image(trainer: Any, vlm: VLM, batch: dict[str, torch.Tensor]) -> float:
    """The share of a batch's tokens that the backward pass goes through, for a model that can be split there.

    Raises:
        InputError: for a model of which the states of the answers change with it.
    """
    inputs = trainer._prepare_inputs(dict(batch))
    starts, kept = inputs.pop("starts"), inputs["attention_mask"].sum()
    inputs.pop("anchors", None)
    learned = inputs.pop("labels") != -100 if "labels" in inputs else inputs.pop("completion_mask") > 0
    whole, split = (before(states, learned).float() for states in _states_both_ways(trainer, vlm, inputs, starts))
    difference = float(((whole - split).norm(dim=1) / whole.norm(dim=1)).max())
    half = vlm.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled(vlm.device.type)
    if not difference < (0.1 if half else 1e-3):
        raise InputError(
            f"What {type(vlm.model).__name__} says of the answers changes by {difference:.2g} when the image is run "
            "before them: it sees what follows it. backward: after_image can't be had for this model; set backward: "
            "whole."
        )
    return float((kept - starts.sum()) / kept)


def _states_both_ways(
    trainer: Any, vlm: VLM, inputs: dict[str, torch.Tensor], starts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T, d) each: the last layer's states as the model has them, and with the tokens before `starts` run first."""
    with untouched(vlm), trainer.compute_loss_context_manager():
        with torch.no_grad():
            whole = vlm.parts.body(**inputs, use_cache=False).last_hidden_state
        try:
            with torch.enable_grad(), after_image(vlm.parts.decoder, starts):
                split = vlm.parts.body(**inputs, use_cache=False).last_hidden_state.detach()
        except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, NotImplementedError) as error:
            if isinstance(error, InputError | torch.OutOfMemoryError):
                raise
            raise InputError(
                f"{type(vlm.model).__name__} can't go on after the image from a cache "
                f"({type(error).__name__}: {' '.join(str(error).split())}). Set backward: whole."
            ) from error
    return whole, split
