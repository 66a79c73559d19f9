"""Which part a process takes next: it reads on where it is, so that it seldom reads over rows that others score."""

from collections.abc import Collection, Sequence


def next_part(free: Sequence[int], taken: Collection[int], last: int | None) -> int:
    """The part behind the last one, or else one of the longest stretch of free parts.

    There it is the first, or the middle one where another process is about to walk into the stretch from its beginning.

    Args:
        free: parts that are neither done nor worked on, ascending; at least one.
        taken: those that are worked on.
        last: the one that this process took before.
    """
    if last is not None and last + 1 in free:
        return last + 1
    begins = [n for n, part in enumerate(free) if n == 0 or free[n - 1] != part - 1]
    longest = max(
        (free[begin:end] for begin, end in zip(begins, [*begins[1:], len(free)], strict=True)),
        key=len,
    )
    return longest[len(longest) // 2 if longest[0] - 1 in taken else 0]
