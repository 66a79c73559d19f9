"""Parts survive interrupts, and pairs.parquet does not depend on how the sweep was cut into parts."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_records import Fake, records, sharp

from vfl.errors import InputError
from vfl.locate.records import SCHEMA, checked, pending, read_parts, read_records, table_of, unite, write_part

TABLE = records({"ocr": Fake(sharp(2), pairs=6), "counting": Fake(sharp(1), pairs=6)}, num_layers=4)


def test_parts_unite_into_one_file_and_vanish(tmp_path: Path) -> None:
    parts, out = tmp_path / "parts", tmp_path / "pairs.parquet"
    half = TABLE.num_rows // 2
    write_part(parts, TABLE.slice(half))
    write_part(parts, TABLE.slice(0, half).to_pylist())
    united = read_parts(parts)
    unite(united, parts, out)
    assert not parts.exists()
    assert read_records(out).equals(united)
    whole = tmp_path / "whole"
    write_part(whole, TABLE)
    unite(read_parts(whole), whole, tmp_path / "other.parquet")
    assert (tmp_path / "other.parquet").read_bytes() == out.read_bytes()
    assert sorted(map(str, united.to_pylist())) == sorted(map(str, TABLE.to_pylist()))


def test_a_chunk_swept_twice_counts_once(tmp_path: Path) -> None:
    write_part(tmp_path, TABLE)
    write_part(tmp_path, TABLE.slice(3, 20))
    assert read_parts(tmp_path).num_rows == TABLE.num_rows


def test_processes_that_write_at_once_take_other_numbers(tmp_path: Path) -> None:
    """None sees what the others are writing; a resumed run may have more or fewer of them."""
    for ranks in (3, 2, 1):
        last = max((int(path.stem) for path in tmp_path.glob("*.parquet")), default=-1)
        names = set()
        for rank in range(ranks):
            path = write_part(tmp_path, TABLE, rank=rank, ranks=ranks)
            names.add(path.name)
            assert int(path.stem) > last
            path.rename(path.with_suffix(".unseen"))
        assert len(names) == ranks
        for path in tmp_path.glob("*.unseen"):
            path.rename(path.with_suffix(".parquet"))


def test_no_parts_are_an_empty_table(tmp_path: Path) -> None:
    assert read_parts(tmp_path / "nowhere").equals(SCHEMA.empty_table())


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    out = tmp_path / "pairs.parquet"
    out.write_bytes(b"before")
    write_part(tmp_path / "parts", TABLE)

    def half_written(table: pa.Table, where: Path, **options: object) -> None:
        Path(where).write_bytes(b"PAR1 half")
        raise stop

    monkeypatch.setattr(pq, "write_table", half_written)
    with pytest.raises(stop):
        unite(TABLE, tmp_path / "parts", out)
    with pytest.raises(stop):
        write_part(tmp_path / "parts", TABLE)
    monkeypatch.undo()
    assert out.read_bytes() == b"before"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["pairs.parquet", "000000.parquet"]
    assert read_parts(tmp_path / "parts").num_rows == TABLE.num_rows


def test_uniting_leaves_foreign_files_alone(tmp_path: Path) -> None:
    write_part(tmp_path / "parts", TABLE)
    note = tmp_path / "parts" / "notes.txt"
    note.write_text("mine")
    unite(TABLE, tmp_path / "parts", tmp_path / "pairs.parquet")
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["notes.txt"]


def test_pending_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    ids = [f"ocr-{n:04d}" for n in range(6)]
    singles = [(k, k) for k in range(4)]
    assert pending(SCHEMA.empty_table(), "ocr", ids, singles) == ids
    done = TABLE.filter(pa.compute.is_in(TABLE["pair_id"], pa.array(ids[:2])))
    assert pending(done, "ocr", ids, singles) == ids[2:]
    assert pending(done, "ocr", ids, [(0, 1)]) == ids
    assert pending(done, "counting", ["ocr-0000"], singles) == ["ocr-0000"]


def test_unreadable_records_are_named(tmp_path: Path) -> None:
    bad = tmp_path / "pairs.parquet"
    bad.write_bytes(b"not parquet")
    with pytest.raises(InputError, match=r"pairs\.parquet is not readable parquet"):
        read_records(bad)
    with pytest.raises(InputError, match="No sweep records"):
        read_records(tmp_path / "missing.parquet")
    with pytest.raises(InputError, match="columns swap are missing"):
        checked(TABLE.drop_columns(["swap"]))
    with pytest.raises(InputError, match="expected one of none, source, control"):
        checked(TABLE.set_column(SCHEMA.get_field_index("swap"), "swap", pa.array(["sauce"] * TABLE.num_rows)))


def test_rows_must_have_every_column() -> None:
    row = TABLE.slice(0, 1).to_pylist()[0]
    with pytest.raises(AssertionError, match="kept"):
        table_of([{key: value for key, value in row.items() if key != "kept"}])
