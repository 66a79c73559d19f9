"""The four-letter task: no word in both files, the same files for a seed, readable by the data readers."""

import pytest

from vfl.data import Sample, read
from vfl.errors import InputError
from vfl.testbeds.micro.words import write_task


def words_of(path):
    rows = list(read(path))
    assert all(isinstance(row, Sample) for row in rows)
    for row in rows:
        assert row.images[0].open().size == (80, 80)
    return [row.messages[-1]["content"][0]["text"] for row in rows]


def test_the_files_share_no_word_and_repeat_none(tmp_path):
    write_task(tmp_path / "words", rows=40, test=20)
    train, test = words_of(tmp_path / "words" / "train.jsonl"), words_of(tmp_path / "words" / "test.jsonl")
    assert len(train) == 40
    assert len({*train, *test}) == 60
    assert {len(word) for word in test} == {4}
    assert sum(len(word) == 3 for word in train) == 10


def test_a_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_task(tmp_path / name, rows=8, test=4, seed=seed)
    roots = {name: tmp_path / name for name in "abc"}
    files = {name: sorted(path.relative_to(root) for path in root.rglob("*.*")) for name, root in roots.items()}
    assert files["a"] == files["b"] != files["c"]
    for path in files["a"]:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_nothing_is_replaced_or_left_behind(tmp_path):
    (tmp_path / "words").mkdir()
    with pytest.raises(InputError, match="exists already"):
        write_task(tmp_path / "words")
    with pytest.raises(InputError, match="at least 1"):
        write_task(tmp_path / "other", rows=0)
    assert [path.name for path in tmp_path.iterdir()] == ["words"]
