"""Pictures in parquet files are read where they lie, and a row group once for the rows that are near to each other."""

import base64
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vfl.data import cell as cells
from vfl.data import read
from vfl.data.formats import sources
from vfl.errors import InputError

TURNS = [{"role": "user", "content": "What colour?"}, {"role": "assistant", "content": "Green."}]
FORMS = {
    "struct": lambda images: {"image": {"bytes": images[0], "path": "a.png"}},
    "bytes": lambda images: {"image": images[0]},
    "list": lambda images: {"images": [{"bytes": image, "path": None} for image in images]},
    "list of bytes": lambda images: {"images": images},
}


@pytest.fixture
def chunks(monkeypatch):
    """Those of this process, empty, with a limit that a test may set."""
    kept = cells.Chunks(2**20)
    monkeypatch.setitem(cells._of_process, os.getpid(), kept)
    return kept


def rows_of(png, count, form="struct", number=1):
    return [{"messages": TURNS, **FORMS[form]([png(size=(3 + n, 3 + k)) for k in range(number)])} for n in range(count)]


def write(path, rows, group=2):
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


def placed(path):
    """Each row's images as they are stored by place alone."""
    return [[replace(image, data=None) for image in sample.images] for sample in read(path)]


@pytest.mark.parametrize(("form", "number"), [("struct", 1), ("bytes", 1), ("list", 2), ("list of bytes", 3)])
def test_a_cell_is_the_picture(tmp_path, png, form, number, chunks):
    path = write(tmp_path / "rows.parquet", rows_of(png, 5, form, number))
    for sample, images in zip(read(path), placed(path), strict=True):
        assert len(images) == number
        for image, stored in zip(sample.images, images, strict=True):
            assert stored.cell.read() == image.data
            assert pickle.loads(pickle.dumps(stored)).open().size == image.open().size
            assert stored.name == image.name
    assert chunks.readings == 3, "each row group once"


@pytest.mark.parametrize("nested", [False, True])
def test_another_column_with_the_name_and_a_dot_is_another(tmp_path, png, nested, chunks):
    """A thumbnail is a valid picture too: nobody would see that it was the wrong one."""
    own, other = [[png(size=(3 + n, k)) for n in range(4)] for k in (3, 4)]
    images = [{"bytes": one, "path": "a.png"} for one in own] if nested else own
    columns = {"image.bytes" if nested else "image.thumb": other, "image": images, "messages": [TURNS] * 4}
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=2)
    assert [images[0].cell.read() for images in placed(path)] == own
    alone = write(tmp_path / "alone.parquet", [{"messages": TURNS, "image": image} for image in images])
    assert [images[0].cell.size for images in placed(path)] == [images[0].cell.size for images in placed(alone)]


def test_bytes_of_one_length_are_pictures_too(tmp_path, png, chunks):
    image = png()
    fixed = pa.array([image] * 4, pa.binary(len(image)))
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"image": fixed, "messages": [TURNS] * 4}), path, row_group_size=2)
    assert [images[0].cell.read() for images in placed(path)] == [image] * 4


@pytest.mark.parametrize("nested", [False, True])
def test_a_picture_that_many_rows_show_is_held_once(tmp_path, nested, chunks):
    image = os.urandom(50_000)
    rows = [{"messages": TURNS, "images": [{"bytes": image}] if nested else [image]} for _ in range(100)]
    path = write(tmp_path / "rows.parquet", rows, group=100)
    cells_of = [images[0].cell for images in placed(path)]
    assert all(cell.read() == image for cell in cells_of)
    assert chunks.readings == 1
    assert chunks._bytes < 10 * len(image)


def test_what_is_kept_is_bounded_and_what_was_used_last_stays(tmp_path, chunks):
    path = write(tmp_path / "rows.parquet", [{"messages": TURNS, "image": os.urandom(9000)} for _ in range(6)])
    flat = [images[0].cell for images in placed(path)]
    size = flat[0].size
    chunks.most = 2 * size + size // 2
    for number in (0, 2, 3, 1):
        flat[number].read()
    assert chunks.readings == 2
    flat[4].read()
    assert chunks._bytes <= chunks.most
    flat[0].read()
    assert chunks.readings == 3
    assert len(chunks._kept) == 2, "the row group of 2 and 3 went, used longest ago"
    flat[2].read()
    assert chunks.readings == 4
    chunks.most = 1
    flat[5].read()
    assert len(chunks._kept) == 1, "one is held, whatever its size"


def test_places_do_not_depend_on_where_reading_begins(tmp_path, png):
    path = write(tmp_path / "rows.parquet", rows_of(png, 40), group=20)
    (source,) = sources(path)
    whole = list(source.rows())
    for first in (1, 17, 20, 33):
        from_there = [raw.stored_row for raw in source.rows(start=whole[first].start)]
        assert from_there == [raw.stored_row for raw in whole[first:]]
    assert [(raw.stored_row.group, raw.stored_row.row) for raw in whole] == [divmod(n, 20) for n in range(40)]


def test_bytes_that_were_made_of_a_text_have_no_cell(tmp_path, png):
    text = base64.b64encode(png()).decode()
    path = write(tmp_path / "rows.parquet", [{"messages": TURNS, "image": text}])
    ((image,),) = (sample.images for sample in read(path))
    assert image.data is not None
    assert image.cell is None


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_read_by_themselves(tmp_path, png, method, chunks):
    path = write(tmp_path / "rows.parquet", rows_of(png, 4))
    refs = [image for images in placed(path) for image in images]
    sizes = [ref.open().size for ref in refs]
    with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
        assert list(pool.map(size_of, refs)) == sizes


def size_of(ref):
    return ref.open().size


def test_a_file_that_is_gone_or_changed_is_said_so(tmp_path, png, chunks):
    path = write(tmp_path / "rows.parquet", rows_of(png, 4))
    refs = [image for images in placed(path) for image in images]
    refs[0].open()
    path.rename(tmp_path / "moved.parquet")
    refs[1].open()  # of the same row group
    with pytest.raises(InputError, match=r"rows.parquet is not there any more"):
        refs[2].open()
    write(path, rows_of(png, 9))
    with pytest.raises(InputError, match=r"rows.parquet was changed since"):
        refs[2].open()


def test_a_damaged_page_names_file_and_row(tmp_path, png, chunks):
    path = write(tmp_path / "rows.parquet", rows_of(png, 4))
    refs = [image for images in placed(path) for image in images]
    content = bytearray(path.read_bytes())
    leaf = pq.ParquetFile(path).metadata.row_group(1).column(2)
    assert leaf.path_in_schema == "image.bytes"
    begin = leaf.dictionary_page_offset or leaf.data_page_offset
    content[begin : begin + 60] = b"\xff" * 60
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(InputError, match=r"column 'image' of row 1 in row group 2 of .*rows.parquet cannot be read"):
        refs[2].open()
