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
    if first and (store := _store()) is not None:
        store.set(_key(text), "said")


def _first_says(text: str) -> bool:
    """Whether the first process says the same; a trouble of this one's own it never says."""
    store = _store()
    if store is None:
        return True  # nothing but the settings has been read yet, and all read the same
    try:
        # Not before it has: a launcher ends the others as soon as one ends, and the first might have said nothing yet.
        store.wait([_key(text)], PATIENCE)
    except dist.DistNetworkError:
        return True  # the first has ended already, with what it had to say
    except dist.DistError:
        return False
    return True


def _store() -> dist.Store | None:
    """What the processes share: the group's, or the launcher's own before there is one; None under other launchers."""
    if not dist.is_available():
        return None
    if dist.is_initialized():
        return _get_default_store()
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # torchrun's, and accelerate's
        return None
    return dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=PATIENCE)


def _key(text: str) -> str:
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return f"vfl/said/{start}/{sha256(text.encode()).hexdigest()}"
