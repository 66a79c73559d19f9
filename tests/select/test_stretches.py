"""Processes that share parts: all parts are taken, each once, and each process reads on where it is."""

import pytest

from vfl.select.shards.stretches import next_part


@pytest.mark.parametrize(("processes", "parts"), [(1, 40), (2, 40), (8, 64), (5, 7), (3, 1)])
def test_every_part_is_taken_once_in_few_stretches(processes, parts):
    free, taken, last = set(range(parts)), {}, dict.fromkeys(range(processes))
    jumps = []
    while free:
        for process in range(processes):  # each ends its part and takes another
            taken.pop(process, None)
            if free:
                part = next_part(sorted(free), set(taken.values()), last[process])
                if last[process] is None or part != last[process] + 1:
                    jumps.append(part)
                free.remove(part)
                taken[process] = last[process] = part
    assert len(jumps) <= 1 if processes == 1 else len(jumps) <= min(parts, 4 * processes)
    assert jumps[0] == 0


def test_a_stretch_that_nobody_walks_into_is_begun_at_its_beginning():
    assert next_part([3, 6, 7, 8], set(), None) == 6
    assert next_part([3, 6, 7, 8], {5}, None) == 7
    assert next_part([3, 6, 7, 8], {5}, 2) == 3
