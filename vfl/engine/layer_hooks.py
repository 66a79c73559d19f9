"""One way to look at, or change, what goes into decoder layers and comes out of them during a pass."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")
# (layer, its input (B, T, d), its other keyword arguments) -> None, or both to go on with
Enter = Callable[[int, torch.Tensor, Mapping[str, Any]], tuple[torch.Tensor, Mapping[str, Any]] | None]
# (layer, its output (B, T, d), the keyword arguments that it was given) -> None, or the output to go on with
Leave = Callable[[int, torch.Tensor, Mapping[str, Any]], torch.Tensor | None]


@contextmanager
def layer_hooks(
    layers: nn.ModuleList,
    enter: Enter | None = None,
    leave: Leave | None = None,
    *,
    only: Collection[int] | None = None,
) -> Iterator[None]:
    """Call `enter` before each decoder layer and `leave` after it; the hooks are gone afterwards, come what may.

    Either may run layers itself; those runs are not reported.

    Args:
        layers: the decoder layers.
        enter: called with the layer's number, its hidden states and its other arguments; what it returns, states and
            arguments, takes their place.
        leave: called with the layer's number, its hidden states afterwards and the arguments that it was given; what
            it returns takes the states' place.
        only: these layers; by default all.
    """
    inside = False

    def alone(run: Callable[[], T]) -> T | None:
        """Not from within another call."""
        nonlocal inside
        if inside:
            return None
        inside = True
        try:
            return run()
        finally:
            inside = False

    def entering(layer_idx: int, visit: Enter) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            state = args[0] if args else kwargs["hidden_states"]
            others = {name: value for name, value in kwargs.items() if name != "hidden_states"}
            changed = alone(lambda: visit(layer_idx, state, others))
            if changed is None:
                return None
            state, others = changed[0], dict(changed[1])
            return ((state, *args[1:]), others) if args else (args, others | {"hidden_states": state})

        return hook

    def leaving(layer_idx: int, visit: Leave) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
            changed = alone(lambda: visit(layer_idx, first_tensor(output), kwargs))
            if changed is None:
                return None
            return changed if isinstance(output, torch.Tensor) else (changed, *output[1:])

        return hook

    handles = []
    try:
        for layer_idx, layer in enumerate(layers):
            if only is not None and layer_idx not in only:
                continue
            if enter is not None:
                handles.append(layer.register_forward_pre_hook(entering(layer_idx, enter), with_kwargs=True))
            if leave is not None:
                handles.append(layer.register_forward_hook(leaving(layer_idx, leave), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def first_tensor(output: Any) -> torch.Tensor:
    """The hidden states of a layer's output: layers return a bare tensor or a tuple that starts with it."""
    hidden: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return hidden
