"""Weights of answer tokens in a file: what is written is read by row, and nothing else passes for it."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vfl.data.sample import Sample
from vfl.data.token_weights import TokenWeights, answer_hash, row_digest, weights_table
from vfl.errors import InputError


def sample(answer, uid="a"):
    said = (("user", "How many?"), ("assistant", answer))
    turns = tuple({"role": role, "content": [{"type": "text", "text": text}]} for role, text in said)
    return Sample(uid=uid, where="rows.json row 1", messages=turns)


def written(folder, table):
    pq.write_table(table, folder / "w.parquet")
    return folder / "w.parquet"


def test_rows_are_known_by_what_they_say(tmp_path):
    rows = [sample("one"), sample("two")]
    table = weights_table([row_digest(row) for row in rows], ["ab", "cd"], [[1, 0], [1]])
    weights = TokenWeights(written(tmp_path, table))
    assert weights.of(sample("one", uid="another name")).weights == bytes([1, 0])
    assert (weights.of(rows[1]).tokens, weights.of(rows[1]).weights) == ("cd", bytes([1]))
    assert weights.of(sample("three")) is None
    assert sample("three") not in weights
    assert rows[0] in weights


def test_hashes_tell_tokens_their_order_and_their_number_apart():
    lists = ([1, 2], [2, 1], [1], [1, 2, 0], [12], [])
    assert len({answer_hash(ids) for ids in lists}) == len(lists)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"row": ["a"]}), "has the columns row; expected the file token-weights.parquet"),
        (weights_table(["a"], ["b"], [[0, 2]]), "weights other than 0 and 1"),
        (weights_table(["a"], ["b"], [None]), "weights other than 0 and 1"),
    ],
)
def test_other_files_are_refused(tmp_path, table, message):
    with pytest.raises(InputError, match=message):
        TokenWeights(written(tmp_path, table))


def test_a_file_of_no_rows_has_no_weights(tmp_path):
    assert sample("one") not in TokenWeights(written(tmp_path, weights_table([], [], [])))


def test_what_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "w.parquet").write_text("nothing")
    with pytest.raises(InputError, match=r"w\.parquet can't be read"):
        TokenWeights(tmp_path / "w.parquet")
