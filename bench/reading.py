"""How many times the bytes of data are read before and while it is scored, and what hashes of images cost.

    OMP_NUM_THREADS=1 python bench/reading.py

For each container: the first reading (counting, hashing, indexing), and the reading of parts by one process and by
several that score together, as multiples of the file's size. Counted are the bytes that the process asks the system for
(Linux, /proc/self/io). Rows hold bytes that can't be packed; parquet has row groups larger than a part.
"""

import argparse
import io
import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vfl.data.hashing import Hashes
from vfl.data.reading import Data, open_data
from vfl.select.hashes import exact, perceptual
from vfl.select.shards.data_files import sources_of
from vfl.select.shards.parts import Plan, Walker
from vfl.select.shards.row_index import open_index, write_index
from vfl.select.shards.stretches import next_part

ROWS, BYTES, GROUP, PART = 1_600, 20_000, 400, 100
SIZES = ((336, 336), (640, 480), (1024, 768), (1920, 1080))


def main() -> None:
    """Make the data, read it, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=4, help="that score together")
    processes = parser.parse_args().processes
    with tempfile.TemporaryDirectory() as folder:
        paths = written(Path(folder))
        list(open_data(paths[0]).rows())  # what is imported on the way is read now
        print(f"{'':<10}{'first reading':>16}{'one process':>16}{f'{processes} processes':>16}")
        for path in paths:
            print(f"{path.suffix:<10}" + "".join(f"{times:>14.2f} x" for times in readings(path, processes)))
    print(f"\n{'ms':<14}{'decode':>10}{'perceptual':>12}{'exact':>10}")
    for size in SIZES:
        print(f"{f'{size[0]} x {size[1]}':<14}" + "".join(f"{cost:>11.2f}" for cost in hash_costs(size)))


def readings(path: Path, processes: int) -> tuple[float, float, float]:
    """The bytes of the first reading, of scoring by one process and by several, in sizes of the file."""
    size, index = path.stat().st_size, path.with_suffix(".index")
    before = bytes_read()
    data, hashes = open_data(path), Hashes()
    rows = write_index(index, data, hashes, lambda: [hashes.of(path)])
    first = bytes_read() - before
    sources = sources_of(path, None, None, hashes)
    plan = Plan(model={}, map=None, functions={}, measured={}, sources=sources, rows=rows, shard_rows=PART, settings={})
    scored = [parts_read(lambda: open_data(path), plan, index, count) for count in (1, processes)]
    return first / size, scored[0] / size, scored[1] / size


def parts_read(opened: Callable[[], Data], plan: Plan, index: Path, processes: int) -> int:
    """The bytes that processes read which take turns in taking a part each."""
    before = bytes_read()
    known = [source["sha256"] for source in plan.sources]
    walkers = [Walker(opened(), plan, open_index(index, plan.rows, known)) for _ in range(processes)]
    free, last = set(range(plan.num_parts)), dict.fromkeys(range(processes))
    taken: dict[int, int] = {}
    while free:
        for process, walker in enumerate(walkers):
            taken.pop(process, None)
            if free:
                part = next_part(sorted(free), set(taken.values()), last[process])
                free.remove(part)
                taken[process] = last[process] = part
                for _ in walker.rows_of(part):
                    pass
    return bytes_read() - before


def bytes_read() -> int:
    """What this process has asked for so far."""
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


def written(folder: Path) -> list[Path]:
    """The same rows as parquet, JSON lines, a JSON array and a tar archive."""
    rng = np.random.default_rng(0)
    blobs = [rng.bytes(BYTES) for _ in range(ROWS)]
    turns = [[{"from": "human", "value": f"<image>\n{n}?"}, {"from": "gpt", "value": f"{n}"}] for n in range(ROWS)]
    parquet, lines, array, archive = (folder / f"data.{name}" for name in ("parquet", "jsonl", "json", "tar"))
    images = [{"bytes": blob, "path": None} for blob in blobs]
    pq.write_table(pa.table({"conversations": turns, "image": images}), parquet, row_group_size=GROUP)
    Image.new("RGB", (8, 8)).save(folder / "x.png")
    texts = [
        json.dumps({"conversations": asked, "image": "x.png", "note": blob.hex()[:BYTES]})
        for asked, blob in zip(turns, blobs, strict=True)
    ]
    lines.write_text("\n".join(texts), encoding="utf-8")
    array.write_text(f"[{','.join(texts)}]", encoding="utf-8")
    with tarfile.open(archive, "w") as file:
        for n, (asked, blob) in enumerate(zip(turns, blobs, strict=True)):
            for name, content in (("json", json.dumps({"conversations": asked}).encode()), ("png", blob)):
                member = tarfile.TarInfo(f"{n:05}.{name}")
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
    return [parquet, lines, array, archive]


def hash_costs(size: tuple[int, int]) -> tuple[float, float, float]:
    """Least milliseconds of the processor to decode a JPEG of this size, and for its two hashes."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8))
    image, packed = small.resize(size).filter(ImageFilter.GaussianBlur(1)), io.BytesIO()
    image.save(packed, "JPEG", quality=90)
    return (
        least(lambda: Image.open(io.BytesIO(packed.getvalue())).convert("RGB")),
        least(lambda: perceptual(image)),
        least(lambda: exact(image)),
    )


def least(work: Callable[[], object], repeats: int = 20) -> float:
    """Milliseconds."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return 1e3 * min(times)


if __name__ == "__main__":
    main()
