"""A file's hash is that of its bytes, in whatever order they were read, and each is hashed once."""

import io
import os
import random
from hashlib import sha256

import pytest

from vfl.data.hashing import HashedFile, Hashes
from vfl.errors import InputError

DATA = random.Random(0).randbytes(100_000)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "data").write_bytes(DATA)
    return tmp_path / "data"


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_reads_gives_the_bytes_and_the_hash(path, seed):
    rng, counted = random.Random(seed), []
    hashes = Hashes(counted.append)
    with hashes.open(path) if seed % 2 else hashes.open_any_order(path) as file:
        for _ in range(60):
            start, size = rng.randrange(len(DATA)), rng.randrange(9_000)
            if isinstance(file, HashedFile) and rng.random() < 0.3:
                file.keep(start, start + size)
            whence = rng.choice(
                [(start, os.SEEK_SET), (start - file.tell(), os.SEEK_CUR), (start - len(DATA), os.SEEK_END)]
            )
            assert file.seek(*whence) == start
            assert file.read(size) == DATA[start : start + size]
    assert hashes.of(path) == hashes.of(path) == sha256(DATA).hexdigest()
    assert sum(counted) == len(DATA)


def test_lines_are_those_of_the_file(path):
    path.write_bytes(b"a\nbc\r\n\n" + b"x" * 3_000_000 + b"\nend")
    assert list(Hashes().open(path)) == path.read_bytes().splitlines(keepends=True)
    assert io.BytesIO(path.read_bytes()).readlines() == list(Hashes().open(path))


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_file_that_changes_while_it_is_read_is_refused(path, size):
    hashes = Hashes()
    with hashes.open(path) as file:
        file.read(20)
    os.truncate(path, size)
    with pytest.raises(InputError, match="changed while it was read"):
        hashes.of(path)
