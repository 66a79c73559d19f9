"""Decode every image before a run, so that a broken one is reported with its row and never met halfway."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from vfl.data.sample import BadRow, Sample
from vfl.errors import InputError


def check_images(
    samples: Iterable[Sample | BadRow], workers: int = 1, *, header_only: bool = False
) -> Iterator[BadRow]:
    """The samples with an image that cannot be opened, in order; bad rows pass through.

    Threads, since Pillow's decoders let go of the interpreter lock. Few samples more than there are workers are in
    memory at a time.

    Args:
        header_only: read the images' headers and not their pixels: many times faster, misses cut-off files.
    """
    waiting: deque[Future[BadRow | None]] = deque()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for sample in samples:
            waiting.append(pool.submit(_check, sample, header_only))
            if len(waiting) > 4 * max(1, workers):
                yield from _bad(waiting.popleft())
        for future in waiting:
            yield from _bad(future)


def _check(sample: Sample | BadRow, header_only: bool) -> BadRow | None:
    if isinstance(sample, BadRow):
        return sample
    try:
        for image in sample.images:
            image.check(decode=not header_only)
    except InputError as error:
        return BadRow(sample.where, sample.uid, str(error))
    return None


def _bad(future: Future[BadRow | None]) -> Iterator[BadRow]:
    failure = future.result()
    if failure is not None:
        yield failure
