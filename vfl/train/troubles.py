"""What can go wrong with a run that is right: no memory, no room, no right to write, in one paragraph each."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from vfl.errors import InputError
from vfl.io.disk import is_barred, is_full
from vfl.train.recipe import Recipe

_MEMORY_TEXTS = ("out of memory", "not enough memory", "can't allocate memory")


@contextmanager
def explained(recipe: Recipe) -> Iterator[None]:
    """Within it, a lack of memory, of room on the disk, or of rights in the run's folder is an InputError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(_no_memory(recipe, str(error))) from error
    except OSError as error:
        if is_full(error):
            raise InputError(_no_room(recipe.out)) from error
        if is_barred(error, recipe.out):
            raise InputError(
                f"{error.filename} can't be written ({error.strerror}). Give another folder with out=, or the rights "
                "to write there."
            ) from error
        raise
    except (RuntimeError, SafetensorError) as error:
        if is_full(error):
            raise InputError(_no_room(recipe.out)) from error
        if any(text in str(error) for text in _MEMORY_TEXTS):
            raise InputError(_no_memory(recipe, str(error))) from error
        raise


def _no_memory(recipe: Recipe, text: str) -> str:
    batch = recipe.trainer.get("per_device_train_batch_size", "TRL's default")
    return (
        f"There is not enough memory for a step of {batch} rows a process ({' '.join(text.split())[:200]}). Use a "
        "smaller trainer.per_device_train_batch_size with more trainer.gradient_accumulation_steps, checkpointing: on, "
        "a lower max_pixels or data.max_length, quantize: 4bit, or deepspeed: zero3-offload."
    )


def _no_room(out: Path) -> str:
    return (
        f"The disk of {out} is full. What was written to its end is whole; make room, keep fewer checkpoints with "
        "trainer.save_total_limit, or give another folder with out=. --resume goes on from the last checkpoint."
    )
