"""Operations, seconds and peak memory of a run."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

T = TypeVar("T")
# glibc keeps what is freed unless it was mapped on its own; with these, a child's resident size follows its tensors.
CHILD_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def count_flops(run: Callable[[], T]) -> tuple[T, int]:
    """The result of a run and the operations of its matrix products, convolutions and attentions."""
    with _Operations() as counter:
        result = run()
    return result, counter.total


class _Operations(TorchDispatchMode):
    """PyTorch's own count of each operator (`FlopCounterMode`), without the module it belongs to, which takes long."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self._whole: set[Any] = set()  # operators that are not made of others

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(function._overloadpacket)
        if formula is None and function not in self._whole:
            with self:
                result = function.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
            self._whole.add(function)
        result = function(*args, **kwargs)
        if formula is not None:
            self.total += formula(*_as_counted(function, args), **kwargs, out_val=result)
        return result


def _as_counted(function: Any, args: Any) -> Any:
    """The arguments as PyTorch's formulas expect them.

    Products without the type of their output; an attention with as many key-value heads as query heads: fused kernels
    share them between query heads, and each of these still has products of its own.
    """
    name = function._overloadpacket.__name__
    if "dtype" in function._overloadname:
        return tuple(each for each in args if isinstance(each, torch.Tensor))
    if "scaled_dot_product" not in name:
        return args
    first = 1 if name.endswith("_backward") else 0  # behind the output's gradient
    heads = args[first].shape[1]
    written = [
        torch.empty((len(each), heads, *each.shape[2:]), device="meta", dtype=each.dtype)
        for each in args[first + 1 : first + 3]
    ]
    return (*args[: first + 1], *written, *args[first + 3 :])


class _Launches(TorchDispatchMode):
    """Counts operators that start a kernel on a GPU: all but those that only look at a tensor in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Making room is none; and what Python calls a view is one or, unsafely, the same.
        self.count += not (function.is_view or "_unsafe_view" in str(function) or "empty" in str(function))
        return function(*args, **(kwargs or {}))


def count_launches(run: Callable[[], object]) -> int:
    """Operators of a run that start a kernel; on a GPU small models and short passes wait for these."""
    with _Launches() as launches:
        run()
    return launches.count


def median_seconds(
    runs: Mapping[str, Callable[[], object]],
    repeats: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median time of each run; empty without repeats. They take turns: a busy machine slows all of them alike.

    Args:
        clock: tells seconds: wall time, or `time.process_time` on a machine whose cores others use, too.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            _finish(device)
            start = clock()
            run()
            _finish(device)
            taken[name].append(clock() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items() if seconds}


def peak_bytes(run: Callable[[], object], device: torch.device) -> int | None:
    """Memory that a run takes at its peak on top of what was held before, or None where it can't be measured."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak to the present resident size
    except OSError:  # not Linux, or not allowed in this container
        return None
    before = _resident("VmRSS")
    run()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    """A size in bytes from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(kilobytes)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
