"""Rows of every kind, a folder with their images, and files of every container to hold them."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def _turns(question, answer, role="role", content="content", asker="user", answerer="assistant"):
    return [{role: asker, content: question}, {role: answerer, content: answer}]


@pytest.fixture
def folder(tmp_path):
    """Two images, red.png (8 x 6) and blue.jpg (5 x 7) in a folder below."""
    Image.new("RGB", (8, 6), "red").save(tmp_path / "red.png")
    (tmp_path / "below").mkdir()
    Image.new("RGB", (5, 7), "blue").save(tmp_path / "below" / "blue.jpg")
    return tmp_path


@pytest.fixture(scope="session")
def turns():
    """Two turns, as `messages` has them unless other names are given."""
    return _turns


@pytest.fixture(scope="session")
def from_value():
    """Two turns as LLaVA and ShareGPT write them."""
    return lambda question, answer: _turns(question, answer, "from", "value", "human", "gpt")


@pytest.fixture(scope="session")
def write():
    """write(container, path, rows) -> what `read` is given for these rows in that container."""

    def _write(container, path, rows):
        if container == "json":
            path.write_text(json.dumps(rows, indent=2), encoding="utf-8")
        elif container == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        elif container == "parquet":
            pq.write_table(pa.Table.from_pylist(_filled(rows)), path)
        elif container == "webdataset":
            _write_tar(path, [(f"{i:04}", {"json": json.dumps(row).encode()}) for i, row in enumerate(rows)])
        elif container in ("saved", "memory"):
            import datasets

            dataset = datasets.Dataset.from_list(_filled(rows))
            if container == "memory":
                return dataset
            dataset.save_to_disk(path)
        else:
            raise ValueError(container)
        return path

    return _write


@pytest.fixture(scope="session")
def write_tar():
    """write_tar(path, [(key, {extension: bytes})], mode)"""
    return _write_tar


def _filled(rows):
    """Every row with the columns of all: both libraries take the first row's for all there are."""
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in columns} for row in rows]


def _write_tar(path: Path, samples, mode="w"):
    with tarfile.open(path, mode) as archive:
        for key, files in samples:
            for extension, data in files.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture(scope="session")
def png():
    """The bytes of a PNG of one colour."""

    def _png(colour="green", size=(4, 4)):
        buffer = io.BytesIO()
        Image.new("RGB", size, colour).save(buffer, "PNG")
        return buffer.getvalue()

    return _png
