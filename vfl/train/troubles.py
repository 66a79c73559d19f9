"""What can go wrong with a run that is right: no memory, no room, no right to write, in one paragraph each."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from vfl.errors import InputError
from vfl.train.recipe import Recipe

_FULL = {errno.ENOSPC, errno.EDQUOT}
_BARRED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT}
# Writers that wrap the system's error in one of their own say this.
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed", "unexpected pos")
_MEMORY_TEXTS = ("out of memory", "not enough memory", "can't allocate memory")


@contextmanager
def explained(recipe: Recipe) -> Iterator[None]:
    """Within it, a lack of memory, of room on the disk, or of rights in the run's folder is an InputError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(_no_memory(recipe, str(error))) from error
    except OSError as error:
        if error.errno in _FULL:
            raise InputError(_no_room(recipe.out)) from error
        if error.errno in _BARRED and _inside(error.filename, recipe.out):
            raise InputError(
                f"{error.filename} can't be written ({error.strerror}). Give another folder with out=, or the rights "
                "to write there."
            ) from error
        raise
    except (RuntimeError, SafetensorError) as error:
        if any(text in str(error) for text in _FULL_TEXTS):
            raise InputError(_no_room(recipe.out)) from error
        if any(text in str(error) for text in _MEMORY_TEXTS):
            raise InputError(_no_memory(recipe, str(error))) from error
        raise


def _no_memory(recipe: Recipe, text: str) -> str:
    batch = recipe.trainer.get("per_device_train_batch_size", "TRL's default")
    return (
        f"There is not enough memory for a step of {batch} rows a process ({' '.join(text.split())[:200]}). Use a "
        "smaller trainer.per_device_train_batch_size with more trainer.gradient_accumulation_steps, checkpointing: on, "
        "a lower data.max_length, quantize: 4bit, or deepspeed: zero3-offload."
    )


def _no_room(out: Path) -> str:
    return (
        f"The disk of {out} is full. What was written to its end is whole; make room, keep fewer checkpoints with "
        "trainer.save_total_limit, or give another folder with out=. --resume goes on from the last checkpoint."
    )


def _inside(path: object, out: Path) -> bool:
    """Whether a path lies in the run's folder, is it, or lies on the way to it."""
    if not isinstance(path, str | Path):
        return False
    here, folder = Path(path).absolute(), out.absolute()
    return here == folder or folder in here.parents or here in folder.parents
