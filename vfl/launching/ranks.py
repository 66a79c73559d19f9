"""What the processes of one run do together: work that is dealt among them, and errors that end all of them.

    ranks = join()                        # in each process; ALONE without a launcher
    pairs = ranks.first(read)               # the first process reads, all have what it read
    with ranks.together():                  # each loads; if one can't, all raise its error
        vlm = load(...)
    rows = ranks.each(lambda: [sweep(pair) for _, pair in ranks.dealt(pairs)])

They talk over gloo, on CPUs, whatever device each works on. Each must come to the same calls in the same order.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from vfl.engine.memory import is_out_of_memory, not_enough_memory
from vfl.errors import InputError

T = TypeVar("T")

PATIENT = timedelta(days=30)
"""For a process that still works. One that ended closes its connections, which the others see at once."""
HALTED = "vfl/halted"


class LostRankError(Exception):
    """Another process of the run ended without a word to the others."""

    def __init__(self) -> None:
        super().__init__("Another process of this run ended before its work was done.")


class Ranks:
    """The processes of one run, as one of them sees them.

    Attributes:
        rank: of this process.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1, group: Any = None, store: Any = None) -> None:
        self.rank, self.size, self._group, self._store = rank, size, group, store
        self._deals = 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """What all do: at its end each waits for the others, and what one of them can't do is an error in all.

        Raises:
            InputError: of the lowest rank that met one, in all.
            LostRankError: another process has ended.
        """
        if self.size == 1:
            yield
            return
        own: InputError | None = None
        try:
            yield
        except BaseException as error:
            self._halt()
            own = _for_people(error)
            if own is None:
                raise
        texts = self._gathered(None if own is None else str(own))
        text = next((text for text in texts if text is not None), None)
        if text is not None:
            raise own if own is not None and str(own) == text else InputError(text)

    def first(self, work: Callable[[], T]) -> T:
        """What `work` gives in the first process, which alone does it; errors as of `together`."""
        return self.each(work if self.rank == 0 else _nothing)[0]

    def each(self, work: Callable[[], T]) -> list[T]:
        """What `work` gives in each process, by rank; errors as of `together`."""
        with self.together():
            result = work()
        return [result] if self.size == 1 else self._gathered(result)

    def dealt(self, items: Sequence[T]) -> Iterator[tuple[int, T]]:
        """Items with their numbers, each in one process: the next that none has taken yet.

        Inside `together`. No more come when another process has met an error.
        """
        if self.size == 1:
            yield from enumerate(items)
            return
        self._deals += 1
        while True:
            try:
                number = self._store.add(f"vfl/dealt/{self._deals}", 1) - 1
            except dist.DistError as error:
                raise LostRankError from error
            if self.halted or number >= len(items):
                return
            yield number, items[number]

    @property
    def halted(self) -> bool:
        """Whether a process has met an error."""
        try:
            return self.size > 1 and bool(self._store.check([HALTED]))
        except dist.DistError as error:
            raise LostRankError from error

    def _gathered(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(values, value, group=self._group)
        except RuntimeError as error:  # gloo's: a connection was closed
            raise LostRankError from error
        return values

    def _halt(self) -> None:
        """Let the others take nothing more."""
        with suppress(dist.DistError):
            self._store.set(HALTED, "1")


ALONE = Ranks()
"""One process, which no launcher started."""


def join() -> Ranks:
    """The processes that a launcher started with this one, once all are there; `leave` takes this one out again.

    Raises:
        InputError: they can't find each other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    from torch.distributed.distributed_c10d import _get_default_store  # there is no public way to the group's store

    try:
        dist.init_process_group("gloo")
        group = dist.new_group(backend="gloo", timeout=PATIENT)
    except (ValueError, dist.DistError) as error:
        raise InputError(
            f"The {size} processes of this run do not find each other ({' '.join(str(error).split())[:200]}). Start "
            "them with torchrun or accelerate launch, which set WORLD_SIZE, RANK, MASTER_ADDR and MASTER_PORT."
        ) from error
    return Ranks(dist.get_rank(), size, group, _get_default_store())


def leave() -> None:
    """Close the connections to the other ranks: threads of theirs that outlive the interpreter abort the process."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _for_people(error: BaseException) -> InputError | None:
    """An error that is said in a paragraph and no traceback."""
    if isinstance(error, InputError):
        return error
    return InputError(not_enough_memory(error)) if is_out_of_memory(error) else None


def _nothing() -> Any:
    return None
