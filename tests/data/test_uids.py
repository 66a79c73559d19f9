"""Rows keep their names from run to run, and no two rows share one."""

import json
import random
from collections import Counter

import numpy as np

from vfl.data import read
from vfl.data.uids import Namer, Occurrences, repeated_ids, stored_digest


def test_an_id_counts_only_where_it_is_unique(folder, write, turns):
    rows = [
        {"id": "a", "messages": turns("Q1", "A")},
        {"id": "b", "messages": turns("Q2", "A")},
        {"id": "a", "messages": turns("Q3", "A")},
        {"id": 5, "messages": turns("Q4", "A")},
        {"id": "6", "messages": turns("Q5", "A")},
        {"id": 6, "messages": turns("Q6", "A")},
        {"messages": turns("Q7", "A")},
        {"id": None, "messages": turns("Q8", "A")},
        {"id": "two\nlines", "messages": turns("Q9", "A")},
    ]
    uids = [sample.uid for sample in read(write("json", folder / "data", rows))]
    assert uids[1] == "b"
    assert uids[3] == "5"
    for i in (0, 2, 4, 5, 6, 7, 8):  # repeated (as text), absent, or not fit for a line
        assert len(uids[i]) == 34
        assert uids[i].endswith("#0")
    assert len(set(uids)) == len(uids)


def test_equal_rows_stay_separate(folder, write, turns):
    row = {"messages": turns("Q", "A"), "image": "red.png"}
    uids = [sample.uid for sample in read(write("json", folder / "data", [row] * 3))]
    assert [uid.partition("#")[2] for uid in uids] == ["0", "1", "2"]
    assert len({uid.partition("#")[0] for uid in uids}) == 1


def test_every_part_of_a_row_counts(folder, write, turns):
    base = {"messages": turns("<image> Q", "A"), "image": "red.png"}
    rows = [
        base,
        base | {"image": "below/blue.jpg"},
        base | {"messages": turns("Q <image>", "A")},
        base | {"messages": turns("<image> Q", "B")},
        base | {"messages": [{"role": "system", "content": "S"}, *turns("<image> Q", "A")]},
        {"messages": turns("Q", "A")},
    ]
    uids = [sample.uid for sample in read(write("json", folder / "data", rows))]
    assert all(uid.endswith("#0") for uid in uids)
    assert len(set(uids)) == len(rows)
    other_columns = [base | {"source": "x"}, base | {"source": "y"}]  # neither text nor image
    first, second = (sample.uid for sample in read(write("json", folder / "data", other_columns)))
    assert first.partition("#")[0] == second.partition("#")[0] == uids[0].partition("#")[0]


def test_names_do_not_depend_on_rows_after(folder, write, turns):
    rows = [{"messages": turns(f"Q{i % 4}", "A")} for i in range(20)]
    some = [sample.uid for sample in read(write("jsonl", folder / "some", rows[:10]))]
    more = [sample.uid for sample in read(write("jsonl", folder / "more", rows))]
    assert more[:10] == some


def test_occurrences_count_like_a_counter():
    rng = random.Random(0)
    numbers = [rng.choice([rng.getrandbits(64), rng.randrange(50), 0, 2**64 - 1, 1024 * rng.randrange(900)])
               for _ in range(20_000)]  # fmt: skip
    mine, reference = Occurrences(), Counter()
    for number in numbers:
        assert mine.count(number) == reference[number]
        reference[number] += 1


def test_occurrences_take_at_most_36_bytes_a_number():
    mine = Occurrences()
    for number in np.random.default_rng(0).integers(0, 2**63, 30_000).tolist():
        mine.count(number)
        held = mine.keys.itemsize * len(mine.keys) + mine.counts.itemsize * len(mine.counts)
        assert mine.used < 1_000 or 17.9 <= held / mine.used <= 36.1


def test_repeated_ids_are_those_that_occur_twice():
    namer = Namer(repeated_ids(["a", None, "b", "a", None, "c", "c", "c"]))
    content = stored_digest("x")
    assert [namer.name(one, content) for one in ("b", "d")] == ["b", "d"]
    assert [namer.name(one, content)[32:] for one in ("a", "c", None)] == ["#0", "#1", "#2"]
    assert len(repeated_ids([])) == len(repeated_ids(["a", "b"])) == 0


def test_digests_tell_apart_what_json_tells_apart():
    values = [None, 0, 1, "", "0", [], [[]], ["ab", "c"], ["a", "bc"], {}, {"a": 1}, {"a": "1"}, {"a": [1]}, [{"a": 1}]]
    assert len({stored_digest(value) for value in values}) == len(values)
    assert stored_digest({"a": 1, "b": 2}) == stored_digest({"b": 2, "a": 1})
    deep = json.loads("[" * 900 + "]" * 900)
    for _ in range(100_000):
        deep = [deep]
    assert len(stored_digest(deep)) == 16
