"""Rows in an order by row groups: every row once, shuffled, and hardly a row group twice."""

import json
from collections import Counter, OrderedDict
from random import Random

import pytest
from datasets import Dataset

from vfl.train.rows.row_groups import GroupedOrder, RowGroup, in_turn_of_groups, row_groups
from vfl.train.rows.table import FEATURES


def rows_at(*places, columns=(("image", 0),)):
    """Rows with a picture of each of the columns, at (file, group, row), or with none."""
    cell = dict.fromkeys(FEATURES["images"].feature)
    images = [
        []
        if place is None
        else [
            cell | {"path": place[0], "group": place[1], "row": place[2], "keys": json.dumps([column, n]), "size": 10}
            for column, n in columns
        ]
        for place in places
    ]
    return Dataset.from_dict({"images": images}, FEATURES.__class__({"images": FEATURES["images"]}))


def test_rows_of_a_group_are_together_and_a_row_that_comes_again_is_in_another():
    first, second = ("a", 0, 0), ("a", 0, 1)
    rows = rows_at(first, second, ("a", 1, 0), None, ("b", 0, 0), first, second, first, None)
    groups = row_groups(rows)
    assert [group.rows for group in groups] == [[0, 1], [2], [3], [4], [5, 6], [7], [8]]
    assert [group.size for group in groups] == [10, 10, 0, 10, 10, 10, 0]
    chosen = rows.select([7, 2, 0, 4])
    assert [group.rows for group in row_groups(chosen)] == [[0], [1], [2], [3]]


def test_a_row_group_is_as_large_as_all_columns_that_its_rows_show():
    rows = rows_at(("a", 0, 0), ("a", 0, 1), None, columns=[("left", 0), ("left", 1), ("right", 0)])
    assert [group.size for group in row_groups(rows)] == [20, 0]


GROUPS = [RowGroup(list(range(n * 50, n * 50 + 50)), 10) for n in range(40)]


def readings(order, batch, readers, kept):
    """How often each row group is read, by readers that hold the last few each."""
    held = [OrderedDict() for _ in range(readers)]
    count = 0
    for turn in range(0, len(order), batch):
        own = held[turn // batch % readers]
        for row in order[turn : turn + batch]:
            if row // 50 not in own:
                count += 1
            own[row // 50] = True
            own.move_to_end(row // 50)
            while len(own) > kept:
                own.popitem(last=False)
    return count / len(GROUPS)


@pytest.mark.parametrize("readers", [1, 2, 3, 8])
@pytest.mark.parametrize("batch", [1, 4, 7])
def test_every_row_comes_once_and_each_group_is_read_once(readers, batch):
    order = in_turn_of_groups(GROUPS, batch, readers, Random(1), window=40)
    assert sorted(order) == list(range(2000))
    assert readings(order, batch, readers, kept=8) <= 1.3
    rows = list(range(2000))
    Random(0).shuffle(rows)
    assert readings(rows, batch, readers, kept=8) > 20, "which is what a plain shuffle costs"


def test_rows_are_mixed_with_those_of_other_groups():
    order = in_turn_of_groups(GROUPS, 4, 2, Random(1), window=40)
    groups = [row // 50 for row in order]
    seen = [len(set(groups[start : start + 100])) for start in range(0, 1900, 100)]
    assert min(seen) >= 6
    assert order != in_turn_of_groups(GROUPS, 4, 2, Random(2), window=40)


def test_without_shuffling_one_reader_goes_through_rows_as_they_are():
    assert in_turn_of_groups(GROUPS, 4, 1) == list(range(2000))
    assert sorted(in_turn_of_groups(GROUPS, 4, 3)) == list(range(2000))


def test_an_order_follows_from_seed_and_epoch():
    one, other = GroupedOrder(GROUPS, 4, 2, seed=3), GroupedOrder(GROUPS, 4, 2, seed=3)
    first = list(one)
    assert first == list(other)
    assert len(one) == 2000
    one.epoch = 1
    assert list(one) != first
    one.epoch = 0
    assert list(one) == first
    assert list(GroupedOrder(GROUPS, 4, 2, seed=4)) != first


def test_groups_of_any_size_leave_no_row_out():
    rng = Random(0)
    sizes = [rng.choice((0, 1, 3, 70)) for _ in range(60)]
    groups, start = [], 0
    for size in sizes:
        groups += [RowGroup(list(range(start, start + size)), size)] if size else []
        start += size
    for readers in (1, 4, 64):
        assert Counter(in_turn_of_groups(groups, 4, readers, rng, window=50)) == Counter(range(start))
