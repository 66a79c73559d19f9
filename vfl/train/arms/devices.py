"""Which GPUs each of several runs at a time may see."""

import os
from collections.abc import Sequence

import torch


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; none on a machine without."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        names = [name.strip() for name in named.split(",")]
        # As CUDA reads it: what stands behind -1, or behind nothing, is not seen.
        end = next((place for place, name in enumerate(names) if name in ("", "-1")), len(names))
        return names[:end]
    return [str(number) for number in range(torch.cuda.device_count())]


def places(devices: Sequence[str], jobs: int, *, spread: bool) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of each of `jobs` runs at a time; None where there is no GPU.

    Args:
        devices: that may be used.
        jobs: runs at a time. More than devices share them, evenly.
        spread: whether a launcher spreads each run over several GPUs: it gets equally many, side by side. Without one
            a run is one process and sees one GPU, since Trainer would spread it by itself over all that it sees.
    """
    if not devices:
        return [None] * jobs
    size = max(1, len(devices) // jobs) if spread else 1
    groups = [list(devices[n : n + size]) for n in range(0, len(devices) - size + 1, size)]
    return [",".join(groups[n % len(groups)]) for n in range(jobs)]
