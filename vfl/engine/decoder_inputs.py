"""What a model hands its decoder for a batch: embeddings with the images in place, positions, masks.

With it the decoder runs on some of the rows, or on other vision embeddings, without the vision tower.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch

from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

# A blank image is one of the processor's mean colour, which it normalises to zero. Not to zero itself: Idefics3 and
# SmolVLM take images of zeros for padding and drop them. A ten-thousandth is far below one step of a colour.
_BLANK = 1e-4
_GIVEN_BY_CALLER = {"past_key_values", "use_cache"}


class _ReachedError(Exception):
    """Carries the decoder's arguments out of the model."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.arguments = arguments


def on_device(vlm: VLM, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch's inputs where the model is, in its floating-point type.

    From pinned memory they are on their way to a GPU when this returns, and its later work waits for them.
    """
    moved = {name: value.to(vlm.device, non_blocking=True) for name, value in inputs.items()}
    return {name: value.to(vlm.dtype) if value.is_floating_point() else value for name, value in moved.items()}


def blank_images(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same batch with images of one colour, the mean of those that the vision tower was trained on."""
    return {
        name: torch.full_like(value, _BLANK).masked_fill(value == 0, 0) if value.is_floating_point() else value
        for name, value in inputs.items()
    }


@torch.no_grad()
def decoder_inputs(vlm: VLM, inputs: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Keyword arguments of the decoder for a batch: the vision tower runs, the decoder does not."""
    arguments = reaching_decoder(vlm, {**inputs, "position_ids": vlm.positions_of(dict(inputs))})
    assert arguments is not None, f"{type(vlm.model).__name__} ran without its decoder"
    return {name: value for name, value in arguments.items() if name not in _GIVEN_BY_CALLER}


def prompt_inputs(vlm: VLM, encoded: Encoded) -> dict[str, Any]:
    """As `decoder_inputs` for a prompt; not to be changed, since a model that keeps its prompts hands them on."""
    return inputs_of_each(vlm, [encoded])[0]


def inputs_of_each(vlm: VLM, prompts: Sequence[Encoded]) -> list[dict[str, Any]]:
    """As `prompt_inputs` for each prompt; the vision tower sees the images of those that are `alike` together."""

    def make(places: list[int]) -> list[dict[str, Any]]:
        made: dict[int, dict[str, Any]] = {}
        chosen = [prompts[place] for place in places]
        for group in alike_groups(vlm, chosen):
            joined = _run_tower(vlm, [chosen[at] for at in group], chosen[group[0]].length)
            made |= {at: take_rows(joined, [row]) for row, at in enumerate(group)}
        return [made[at] for at in range(len(chosen))]

    return vlm.once([(prompt, "decoder inputs") for prompt in prompts], make)


def alike(vlm: VLM, first: Encoded, other: Encoded) -> bool:
    """Whether two prompts can be rows of one batch without padding; their inputs have one shape."""
    return vlm.joins_images and {name: input_shape(value) for name, value in first.inputs.items()} == {
        name: input_shape(value) for name, value in other.inputs.items()
    }


def alike_groups(vlm: VLM, prompts: Sequence[Encoded], kinds: Sequence[Hashable] | None = None) -> list[list[int]]:
    """Places of prompts that can be rows of one batch: `alike`, and of the same kind where `kinds` are given."""
    groups: list[list[int]] = []
    for at, prompt in enumerate(prompts):
        for group in groups:
            first = group[0]
            if (kinds is None or kinds[first] == kinds[at]) and alike(vlm, prompts[first], prompt):
                group.append(at)
                break
        else:
            groups.append([at])
    return groups


def input_shape(value: Any) -> Any:
    """What joined inputs must have in common: a tensor's shape, anything else itself."""
    return value.shape if isinstance(value, torch.Tensor) else value


def joined_inputs(vlm: VLM, prompts: Sequence[Encoded], end: int | None = None) -> dict[str, Any]:
    """As `decoder_inputs` for prompts that are `alike`, a row each: the vision tower runs once over all images.

    With `end`, of their first `end` tokens, which must hold the image.
    """
    if end is not None:
        return _run_tower(vlm, prompts, end)
    each = inputs_of_each(vlm, prompts)
    return {name: _join(name, [arguments[name] for arguments in each]) for name in each[0]}


def _join(name: str, values: Sequence[Any]) -> Any:
    """One argument of several prompts, a row each, from those of each alone."""
    first = values[0]
    if len(values) == 1:
        return first
    if isinstance(first, dict):  # a mask for each kind of layer
        return {kind: _join(name, [value[kind] for value in values]) for kind in first}
    if isinstance(first, list | tuple):  # features for each layer (DeepStack), an entry per image token
        return [torch.cat(layer) for layer in zip(*values, strict=True)]
    if not isinstance(first, torch.Tensor) or first.ndim < 2:
        return first
    return torch.cat(list(values), dim=_batch_dimension(name, first))


@torch.no_grad()
def _run_tower(vlm: VLM, prompts: Sequence[Encoded], end: int) -> dict[str, Any]:
    """The decoder's arguments for the first `end` tokens of prompts that are `alike`, a row each."""
    heads = [prompt.head(end) for prompt in prompts]
    joined = {
        name: torch.cat([head[name] for head in heads]) if isinstance(value, torch.Tensor) else value
        for name, value in heads[0].items()
    }
    positions = torch.cat([prompt.positions[..., :end] for prompt in prompts], dim=-2)
    arguments = reaching_decoder(vlm, {**joined, "position_ids": positions})
    assert arguments is not None, f"{type(vlm.model).__name__} ran without its decoder"
    return {name: value for name, value in arguments.items() if name not in _GIVEN_BY_CALLER}


@torch.no_grad()
def reaching_decoder(vlm: VLM, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the model hands its decoder for these inputs of its own; None where it runs without calling it."""

    def stop(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        raise _ReachedError(kwargs)

    handle = vlm.parts.decoder.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        vlm.parts.body(**inputs, use_cache=False)
    except _ReachedError as reached:
        return reached.arguments
    finally:
        handle.remove()
    return None


def with_mean(vlm: VLM, arguments: Mapping[str, Any], ids: torch.Tensor, mean: torch.Tensor) -> dict[str, Any]:
    """The same arguments with every vision embedding replaced by `mean` (d,); DeepStack features stay the image's."""
    embeds = arguments["inputs_embeds"].clone()
    embeds[ids.to(embeds.device) == vlm.parts.image_token_id] = mean.to(embeds)
    return {**arguments, "inputs_embeds": embeds}


def take_rows(arguments: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """The arguments of some rows of the batch, in this order; a row may be taken several times."""
    num_rows = arguments["inputs_embeds"].shape[0]
    if list(rows) == list(range(num_rows)):
        return dict(arguments)
    taken = {name: _take(name, value, rows, num_rows) for name, value in arguments.items()}
    features = arguments.get("deepstack_visual_embeds")
    if features is not None:  # one entry per image token of the batch
        owners = arguments["visual_pos_masks"].nonzero()[:, 0]
        kept = torch.cat([(owners == row).nonzero()[:, 0] for row in rows])
        taken["deepstack_visual_embeds"] = [layer[kept.to(layer.device)] for layer in features]
    return taken


def _take(name: str, value: Any, rows: Sequence[int], num_rows: int) -> Any:
    if isinstance(value, dict):  # a mask for each kind of layer
        return {kind: _take(name, mask, rows, num_rows) for kind, mask in value.items()}
    if not isinstance(value, torch.Tensor) or value.ndim < 2:
        return value
    batch = _batch_dimension(name, value)
    if value.shape[batch] == 1 and (num_rows > 1 or value.ndim > 3):
        return value  # what all rows share, such as a mask (1, 1, T, T), broadcasts
    assert value.shape[batch] == num_rows, f"{name} {tuple(value.shape)} for {num_rows} rows"
    return value.index_select(batch, torch.tensor(rows, device=value.device))


def _batch_dimension(name: str, value: torch.Tensor) -> int:
    return value.ndim - 2 if name == "position_ids" else 0  # M-RoPE's axes stand before the batch
