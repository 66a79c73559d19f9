"""What an epoch reads of pictures that lie in a parquet file, and what is held for it in memory and in the cache.

    OMP_NUM_THREADS=1 python bench/streaming.py

Rows are taken in the order of `data.streaming` and in a plain shuffle, by one reading process and by several, each of
which holds some row groups. Counted are the bytes that a process asks the system for (Linux, /proc/self/io), in sizes
of the file, and the most that it holds. Pictures are bytes that can't be packed; nothing is decoded or encoded.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from vfl.data import cell as cells
from vfl.data import read
from vfl.data.sample import Sample
from vfl.train.rows.row_groups import in_turn_of_groups, row_groups
from vfl.train.rows.table import write_rows

BATCH = 4


def main() -> None:
    """Make the data, read it, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=6_000)
    parser.add_argument("--bytes", type=int, default=50_000, help="of a picture")
    parser.add_argument("--group", type=int, default=100, help="rows of a row group")
    parser.add_argument("--kept", type=int, default=64, help="MiB of row groups that a process holds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        write(path, options.rows, options.bytes, options.group)
        copied, streamed = (kept_rows(path, Path(folder) / f"{how}.arrow", how) for how in (False, True))
        size = path.stat().st_size
        print(f"{options.rows:,} rows in a file of {size / 2**20:,.0f} MiB, row groups of {options.group}")
        print(f"cache: {copied[1] / 2**20:,.1f} MiB with copies, {streamed[1] / 2**20:,.1f} MiB with streaming")
        print(f"\n{'order':<16}{'processes':>10}{'file read':>12}{'held (MiB)':>12}{'seconds':>10}")
        most = options.kept * 2**20
        for readers in (1, 4):
            groups = row_groups(streamed[0])
            order = in_turn_of_groups(groups, BATCH, readers, Random(0), window=most // 2)
            show("row groups", readers, epoch(streamed[0], order, readers, most), size)
        # A row group for every row, as good as always: a part of the rows says enough.
        some = Random(0).sample(range(options.rows), options.rows // 20)
        read_bytes, held, seconds = epoch(streamed[0], some, 1, most)
        show("plain shuffle", 1, (20 * read_bytes, held, 20 * seconds), size)


def show(name: str, readers: int, measured: tuple[int, int, float], size: int) -> None:
    """A line of the table."""
    read_bytes, held, seconds = measured
    print(f"{name:<16}{readers:>10}{read_bytes / size:>10.2f} x{held / 2**20:>12,.0f}{seconds:>10.1f}")


def epoch(rows: Dataset, order: Sequence[int], readers: int, most: int) -> tuple[int, int, float]:
    """Bytes read by all processes, the most that one holds, and seconds; one process plays all, one after another."""
    before, began, held = bytes_read(), time.perf_counter(), 0
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    for reader in range(readers):
        cells._of_process[os.getpid()] = chunks = cells.Chunks(most)
        for batch in batches[reader::readers]:
            for row in batch:
                (image,) = rows[row]["images"]
                place = Path(image["path"]), image["stamp"], image["group"], image["row"]
                cells.Cell(*place, ("image",), image["size"]).read()
                held = max(held, chunks._bytes)
    return bytes_read() - before, held, time.perf_counter() - began


def bytes_read() -> int:
    """What this process has asked for so far."""
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


def write(path: Path, count: int, size: int, group: int) -> None:
    """Rows with a picture each."""
    rng = np.random.default_rng(0)
    schema = pa.schema([("question", pa.string()), ("answer", pa.string()), ("image", pa.binary())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, count, group):
            numbers = range(start, min(start + group, count))
            columns = [[f"{n}?" for n in numbers], [f"{n}" for n in numbers], [rng.bytes(size) for _ in numbers]]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=group)


def kept_rows(path: Path, out: Path, streaming: bool) -> tuple[Dataset, int]:
    """The rows as a run keeps them in the cache, and their bytes there."""
    rows = write_rows((row for row in read(path) if isinstance(row, Sample)), out, streaming=streaming)
    return rows, out.stat().st_size


if __name__ == "__main__":
    main()
