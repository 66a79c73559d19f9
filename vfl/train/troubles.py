"""What can go wrong with a run that is right: no memory, no room, no right to write, in one paragraph each."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vfl.errors import InputError
from vfl.io.run_folder import RunFolder
from vfl.train.recipe import Recipe

_MEMORY_TEXTS = ("out of memory", "not enough memory", "can't allocate memory")


@contextmanager
def explained(recipe: Recipe, folder: RunFolder) -> Iterator[None]:
    """Within it, a lack of memory, of room on the disk, or of rights in the run's folder is an InputError.

    What went wrong in a process that reads rows is said as it was there.
    """
    try:
        with folder.explained():
            yield
    except InputError as error:
        if (text := _said_by_worker(error)) is None:
            raise
        raise InputError(text) from error
    except torch.OutOfMemoryError as error:
        raise InputError(_no_memory(recipe, str(error))) from error
    except RuntimeError as error:
        if any(text in str(error) for text in _MEMORY_TEXTS):
            raise InputError(_no_memory(recipe, str(error))) from error
        raise


def _said_by_worker(error: InputError) -> str | None:
    """What a process of the data loader said, which comes wrapped in its traceback; None for anything else."""
    text = str(error)
    if not text.startswith("Caught "):
        return None
    return text.rpartition(f"{type(error).__name__}: ")[2].strip()


def _no_memory(recipe: Recipe, text: str) -> str:
    batch = recipe.trainer.get("per_device_train_batch_size", "TRL's default")
    return (
        f"There is not enough memory for a step of {batch} rows a process ({' '.join(text.split())[:200]}). Use a "
        "smaller trainer.per_device_train_batch_size with more trainer.gradient_accumulation_steps, checkpointing: on, "
        "a lower max_pixels or data.max_length, quantize: 4bit, or deepspeed: zero3-offload."
    )
