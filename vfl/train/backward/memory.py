"""Peak memory of one training step, and whether activations fit without checkpointing."""

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from vfl.engine.memory import ADAM_BYTES, USABLE, free_bytes, is_out_of_memory, release
from vfl.engine.untouched import as_it_was
from vfl.train.backward.truncate import truncate

logger = logging.getLogger(__name__)

GIB = 2**30


@dataclass(frozen=True)
class StepMemory:
    """Memory of one step.

    Attributes:
        peak_bytes: at its peak, on top of what was held before it (weights).
        how: how that was measured, for a table.
    """

    peak_bytes: int
    how: str


@dataclass(frozen=True)
class CheckpointingChoice:
    """What `checkpointing: auto` came to.

    Attributes:
        checkpointing: whether the layers in the backward pass recompute their activations.
        reason: one sentence with the sizes, for the log.
        memory: of a step without checkpointing; None if it ran out of memory.
    """

    checkpointing: bool
    reason: str
    memory: StepMemory | None


def step_memory(step: Callable[[], object], device: torch.device) -> StepMemory:
    """Peak memory of `step`, one forward and backward pass.

    On a GPU that is the allocator's own peak. Elsewhere it is the peak of all tensors that are alive at the same time,
    each storage counted once, which leaves out what kernels allocate inside and so does not depend on the machine.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return StepMemory(torch.cuda.max_memory_allocated(device) - before, "peak of PyTorch's CUDA allocator")
    with _LiveTensors() as live:
        step()
    return StepMemory(live.peak, "peak of the tensors alive at the same time")


def choose_checkpointing(
    peft_model: PeftModel,
    step: Callable[[], object],
    device: torch.device,
    *,
    share: float = USABLE,
    reserve: int = 0,
) -> CheckpointingChoice:
    """Off if a step on the longest batch fits without it, else on; the model, its gradients and all RNGs are untouched.

    In a distributed run every rank must call it; one rank that needs checkpointing switches it on for all.

    Args:
        peft_model: the model with its adapter, on its device and without a truncation.
        step: one forward and backward pass on the longest batch, without an optimizer step.
        device: of the activations.
        share: of the free memory that the step may take.
        reserve: bytes that the run takes later on and the step does not, such as the optimizer's state.
    """
    free = free_bytes(device) - reserve
    memory = None
    try:
        with untouched_by_step(peft_model), truncate(peft_model, checkpointing=False):
            memory = step_memory(step, device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    release()  # outside of the handler, where the error no longer holds the activations
    here = memory is None or memory.peak_bytes > share * free
    needed = _on_any_rank(here, device)
    what = "ran out of memory" if memory is None else f"takes {memory.peak_bytes / GIB:.2f} GiB"
    bound = f"{share:.0%} of the {max(0, free) / GIB:.2f} GiB free on {device} may be taken"
    verdict = "on" if needed else "off"
    others = " (another rank needs it)" if needed and not here else ""
    reason = f"Checkpointing {verdict}{others}: without it a step on the longest batch {what}; {bound}."
    logger.log(logging.WARNING if memory is None else logging.INFO, "%s", reason)
    return CheckpointingChoice(needed, reason, memory)


def optimizer_bytes(model: nn.Module) -> int:
    """What Adam keeps for the trained weights at most: two moments and, where these are narrower, a float32 copy."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return ADAM_BYTES * trained


@contextmanager
def untouched_by_step(model: nn.Module) -> Iterator[None]:
    """A step inside leaves no trace: gradients come back too, besides what `as_it_was` restores."""
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    for parameter in gradients:
        parameter.grad = None
    try:
        with as_it_was(model):
            yield
    finally:
        for parameter, gradient in gradients.items():
            parameter.grad = gradient


def _on_any_rank(needed: bool, device: torch.device) -> bool:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return needed
    flag = torch.tensor(int(needed), device=device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return bool(flag)


class _LiveTensors(TorchDispatchMode):
    """Bytes of the storages that operations made inside the `with` and that are still alive.

    Backward passes and recomputed forwards are seen like everything else. Storages from before, such as weights, count
    nothing, and a view counts nothing beside its storage.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in _tensors((*args, *kwargs.values())):
            self._see(tensor, counted=False)
        output = func(*args, **kwargs)
        for tensor in _tensors((output,)):
            self._see(tensor, counted=True)
        return output

    def _see(self, tensor: torch.Tensor, counted: bool) -> None:
        if tensor.is_meta:
            return
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known:
            return
        size = storage.nbytes() if counted else 0

        def forget(_: object) -> None:
            self._known.pop(key, None)
            self.live -= size

        self._known[key] = weakref.ref(storage, forget)
        self.live += size
        self.peak = max(self.peak, self.live)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Those among an operator's arguments or results, and in their lists."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
