"""Near pairs are found without looking at all pairs, and are those that looking at all pairs finds."""

import numpy as np
import pyarrow as pa
import pytest

from vfl.select.choose import duplicates
from vfl.select.choose.duplicates import BITS, masks
from vfl.select.shards.score_folder import database


@pytest.mark.parametrize("shared", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [1, 4, 7])
def test_equals_looking_at_all_pairs(monkeypatch, bits, shared):
    monkeypatch.setattr(duplicates, "_comparisons", lambda bits, tried, rows: abs(tried - shared))
    rng = np.random.default_rng(bits)
    hashes = rng.integers(0, 2**64, 300, dtype=np.uint64)
    for row in range(100, 300):  # copies of others, with as many other bits as are allowed, one more or fewer
        hashes[row] = hashes[rng.integers(0, row)]
        for place in rng.choice(BITS, rng.integers(0, bits + 2), replace=False):
            hashes[row] ^= np.uint64(1) << np.uint64(place)
    parts = rng.choice(["a", "b"], 300)
    differing = np.bitwise_count(hashes[:, None] ^ hashes[None])
    near = (differing <= bits) & (parts[:, None] == parts[None]) & np.tri(300, k=-1, dtype=bool)
    shown = pa.table({"place": np.arange(300), "part": pa.array(parts), "bits": pa.array(hashes)})
    with database() as connection:
        connection.register("rows", shown)
        connection.execute("CREATE TABLE shown AS SELECT * FROM rows")
        count = duplicates._close(connection, bits)
        found = {place for (place,) in connection.execute("SELECT place FROM close").fetchall()}
    assert found == set(np.flatnonzero(near.any(axis=1)))
    assert 50 < count == len(found) < 250


@pytest.mark.parametrize("bits", [1, 2, 4, 15])
@pytest.mark.parametrize("rows", [10, 10**5, 10**7])
def test_every_bit_is_in_as_many_masks(bits, rows):
    counts = {sum(mask >> bit & 1 for mask in masks(bits, rows)) for bit in range(BITS)}
    assert len(counts) == 1


def test_more_rows_are_not_compared_with_all_others():
    """What is compared by chance, a row: it stays small from 100,000 to 10 million rows."""
    for rows in (10**5, 10**6, 10**7):
        compared = sum(rows / 2 / 2.0 ** mask.bit_count() for mask in masks(4, rows))
        assert compared < 100
