"""An error that all processes of a run meet is printed once."""

import os
import sys
from datetime import timedelta
from hashlib import sha256

import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store  # there is no public way to the group's store

PATIENCE = timedelta(seconds=30)


def say_once(text: str) -> None:
    """Print a line to standard error, unless the first process says the same."""
    first = int(os.environ.get("RANK", "0")) == 0
    if first or not _first_says(text):
        print(text, file=sys.stderr, flush=True)
    if first and dist.is_available() and dist.is_initialized():
        _get_default_store().set(_key(text), "said")


def _first_says(text: str) -> bool:
    """Whether the first process says the same; a trouble of this one's own it never says."""
    if not (dist.is_available() and dist.is_initialized()):
        return True  # nothing but the settings has been read yet, and all read the same
    try:
        _get_default_store().wait([_key(text)], PATIENCE)
    except dist.DistNetworkError:
        return True  # the first has ended already, with what it had to say
    except dist.DistError:
        return False
    return True


def _key(text: str) -> str:
    return f"vfl/said/{sha256(text.encode()).hexdigest()}"
