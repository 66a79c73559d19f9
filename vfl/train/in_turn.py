"""Work that the first process does for all, of any length: the others ask now and then, and no collective waits.

First the first process of all, then the first of each machine (which finds what was done, or does it again where it
sees another disk), then the others.
"""

import time
from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar

from torch.distributed.distributed_c10d import _get_default_store  # there is no public way to the group's store

from vfl.errors import InputError

EVERY = 0.2
"""Seconds between two looks at what the others have done, after some sooner ones: most are through at once."""

T = TypeVar("T")
_calls = count()  # the same number for the same call in all processes


def in_turn(work: Callable[[bool], T], args: Any, *, same: Callable[[T], str]) -> T:
    """What `work` gives in this process, after those whose turn it is before; an error anywhere is one everywhere.

    Args:
        work: told whether this process is the first on its machine.
        args: the trainer's arguments, which know the ranks.
        same: a text that must be the same in all processes.

    Raises:
        InputError: of this process or of another, or when processes came to something else.
    """
    number = next(_calls)
    if args.world_size == 1:
        return work(True)
    store = _get_default_store()
    first = args.local_process_index == 0
    before = None
    if args.process_index > 0:
        leader = 0 if first else args.process_index - args.local_process_index
        before = _wait(store, _key(number, leader))
    said, result = before or "", None
    if not said.startswith(_ERROR):
        try:
            result = work(first)
            said = _DONE + same(result)
        except InputError as error:
            said = f"{_ERROR}{error}"
        except BaseException as error:
            store.set(_key(number, args.process_index), f"{_ERROR}Process {args.process_index} failed: {error!r}")
            raise
    store.set(_key(number, args.process_index), said)
    all_said = [_wait(store, _key(number, rank)) for rank in range(args.world_size)]
    if errors := [text.removeprefix(_ERROR) for text in all_said if text.startswith(_ERROR)]:
        raise InputError(errors[0])
    if len(set(all_said)) > 1:
        raise InputError("The processes have read different rows: data or images changed meanwhile. Start again.")
    assert result is not None
    return result


_DONE, _ERROR = "done ", "error "


def _key(number: int, rank: int) -> str:
    return f"vfl/turn/{number}/{rank}"


def _wait(store: Any, key: str) -> str:
    """What another process says when it is through, however long that takes."""
    pause = EVERY / 32
    while not store.check([key]):
        time.sleep(pause)
        pause = min(2 * pause, EVERY)
    said: str = store.get(key).decode()
    return said
