"""The backward pass goes through the tokens after the image alone.

What stands before the answers, up to the end of the last image before them, runs forward without autograd, adapter
included; its keys and values at every layer are constants to the tokens after it. So the adapter is a plain one that
acts on every token, and can be merged; only the part of its gradient that reaches it through the tokens of the image is
left out. A step then costs V + 2 S in place of 2 (V + S) for V tokens up to the image and S after it, and keeps
activations of S tokens.

Shapes: B rows, T tokens, V of them before the backward pass, d the model's width.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import DynamicCache

from vfl.errors import InputError

# Arguments of decoders with one entry a token, and the dimension of that; M-RoPE's axes stand before the batch.
_TOKEN_DIM = {
    "inputs_embeds": 1,
    "input_ids": 1,
    "position_ids": -1,
    "cache_position": 0,
    "visual_pos_masks": 1,
    "per_layer_inputs": 1,
    "token_type_ids": 1,
    "mm_token_type_ids": 1,
}
_MASKS = ("attention_mask", "causal_mask_mapping")
_SET_HERE = ("past_key_values", "use_cache", "return_dict")


class _AfterImage:
    """What the hooks share during one call of the model.

    Attributes:
        starts: (B,) first token of each row that the backward pass goes through.
    """

    def __init__(self, starts: torch.Tensor) -> None:
        self.starts = starts
        self._prefix: torch.Tensor | None = None
        self._constant: torch.Tensor | None = None
        self._inside = False

    def split(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the tokens before every row's start, and leave the decoder those after."""
        if self._inside or not torch.is_grad_enabled():
            return None
        if kwargs.get("output_router_logits"):
            raise InputError(
                "backward: after_image leaves the router's logits of the image's tokens out, and a loss over the "
                "routing needs them. Set backward: whole, or no router loss."
            )
        start, length = int(self.starts.min()), kwargs["inputs_embeds"].shape[1]
        after = torch.arange(start, length, device=self.starts.device) >= self.starts[:, None]
        self._constant = None if bool(after.all()) else ~after
        if start < 1:
            return None
        first, rest = cut(kwargs, start, length)
        self._inside = True
        try:
            with torch.no_grad():
                # Plain, so that layers with a window keep all keys too: their masks say what is seen.
                output = decoder(*args, **first, past_key_values=DynamicCache(), use_cache=True)
        finally:
            self._inside = False
        self._prefix = output.last_hidden_state
        return args, {**rest, "past_key_values": output.past_key_values, "use_cache": True}

    def join(self, decoder: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """The states of all tokens, as if the decoder had run them together."""
        if self._inside:
            return
        if self._prefix is not None:
            output.last_hidden_state = torch.cat([self._prefix, output.last_hidden_state], dim=1)
            output.past_key_values = None
        self._prefix = self._constant = None

    def stop(self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        """Where images end at different tokens of a batch, those of the longer ones are constants one by one."""
        if self._inside or self._constant is None:
            return None
        if output.shape[:2] != self._constant.shape:
            raise InputError(
                f"The images of a batch end at different tokens, and a {type(module).__name__} of the adapter does not "
                "see its tokens row by row, so backward: after_image can't tell them apart. Set "
                "trainer.per_device_train_batch_size: 1, or backward: whole."
            )
        return torch.where(self._constant[..., None].to(output.device), output.detach(), output)


@contextmanager
def after_image(decoder: nn.Module, starts: torch.Tensor) -> Iterator[None]:
    """The backward pass of a forward inside goes through the tokens from `starts` on; its values stay the same.

    Without gradients, as in an evaluation, nothing changes. Hooks are gone afterwards.

    Args:
        decoder: with its adapter, in a causal model: what stands before does not see what follows.
        starts: (B,) of the batch's rows, as `vfl.train.rows.starts` gives them; 0 for all of a row.

    Raises:
        InputError: inside, for a decoder or an adapter that can't be split so.
    """
    shared = _AfterImage(starts)
    handles: list[RemovableHandle] = [
        decoder.register_forward_pre_hook(shared.split, with_kwargs=True),
        decoder.register_forward_hook(shared.join),
    ]
    if bool((starts != starts[0]).any()):
        adapters = [module for module in decoder.modules() if isinstance(module, BaseTunerLayer)]
        handles += [module.register_forward_hook(shared.stop) for module in adapters]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Shortened:
    """What `backward: after_image` means for one run.

    Attributes:
        decoder: of the model.
        whole_every: one step in so many, from step 0 on, goes through all tokens; 0: none.
    """

    decoder: nn.Module
    whole_every: int

    def is_whole(self, step: int) -> bool:
        """Whether the backward pass of a step, from 0, goes through all tokens."""
        return self.whole_every > 0 and step % self.whole_every == 0

    @contextmanager
    def at(self, step: int, starts: torch.Tensor) -> Iterator[None]:
        """The forward pass of a step, with the starts of its rows."""
        with nullcontext() if self.is_whole(step) else after_image(self.decoder, starts):
            yield


def cut(arguments: Mapping[str, Any], start: int, length: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A decoder's arguments for its first `start` tokens, and for those after them with the first in the cache.

    Raises:
        InputError: for an argument with an entry a token whose cutting is not known.
    """
    first: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in _SET_HERE:
            continue
        if name in _MASKS:
            first[name], rest[name] = _cut_mask(value, start)
        elif name == "deepstack_visual_embeds" and value is not None:
            shown = arguments["visual_pos_masks"]
            early = (torch.arange(length, device=shown.device) < start).expand_as(shown)[shown]
            first[name] = [layer[early.to(layer.device)] for layer in value]
            rest[name] = [layer[~early.to(layer.device)] for layer in value]
        elif name in _TOKEN_DIM and value is not None:
            dim = _TOKEN_DIM[name]
            first[name] = value.narrow(dim, 0, start)
            rest[name] = value.narrow(dim, start, length - start)
        elif isinstance(value, torch.Tensor) and length in value.shape:
            raise InputError(
                f"The decoder takes {name!r} of shape {tuple(value.shape)}, with an entry a token, and how to cut it "
                "is not known. Set backward: whole, and please report the model."
            )
        else:
            first[name] = rest[name] = value
    return first, rest


def _cut_mask(value: Any, start: int) -> tuple[Any, Any]:
    """(B, T) kept tokens, (B or 1, 1, T, T) who sees whom, or one of these for each kind of layer."""
    if isinstance(value, dict):
        parts = {kind: _cut_mask(mask, start) for kind, mask in value.items()}
        return {kind: pair[0] for kind, pair in parts.items()}, {kind: pair[1] for kind, pair in parts.items()}
    if not isinstance(value, torch.Tensor):
        return value, value
    if value.ndim == 2:
        return value[:, :start], value
    return value[..., :start, :start], value[..., start:, :]
