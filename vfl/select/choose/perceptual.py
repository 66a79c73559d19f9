"""Perceptual hashes of the rows' first images: made when a selection compares images, and kept beside the scores.

Most selections compare no images, and those that look for near duplicates only few: of rows with the same text. So
scoring leaves these hashes out. To make them the data is read once and the images of those rows are opened, which takes
about as long as to decode them.

    scores/image-hashes.parquet   position, image_hash (the row's in the score table), bits
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vfl.data import BadRow, Sample
from vfl.data.reading import Data
from vfl.data.uids import Unnamed
from vfl.errors import InputError
from vfl.io.atomic import replacing
from vfl.io.progress import progress_bar
from vfl.select.hashes import perceptual
from vfl.select.shards.score_folder import text

logger = logging.getLogger(__name__)

FILE = "image-hashes.parquet"
CHUNK, WORKERS = 256, 4
KEY = "(position, image_hash)"
SCHEMA = pa.schema([("position", pa.int64()), ("image_hash", pa.string()), ("bits", pa.uint64())])
OWN = "('0x' || substr(image_hash, 1, 16))::UBIGINT"
"""In scores of older versions, whose image_hash is "perceptual:exact" for each image."""


@dataclass(frozen=True)
class Images:
    """Where the images' hashes are: in a folder of scores, and in the data, where it is at hand."""

    scores: Path
    data: Data | None = None

    def hash(self, connection: Any, rows: str) -> None:
        """A table `perceptual(position, image_hash, bits)` for `rows`, SQL with position and image_hash.

        Raises:
            InputError: hashes are missing and can't be made.
        """
        connection.execute(f"CREATE OR REPLACE TABLE asked AS SELECT position, image_hash FROM {rows}")
        connection.execute(f"""
            CREATE OR REPLACE TABLE perceptual AS
            SELECT position, image_hash, {OWN} AS bits FROM asked WHERE contains(image_hash, ':')""")
        kept = self.scores / FILE
        known = _known(kept)
        if known:
            connection.execute(f"INSERT INTO perceptual SELECT * FROM {known} SEMI JOIN asked USING {KEY}")
        missing = f"asked ANTI JOIN perceptual USING {KEY}"
        ((count,),) = connection.execute(f"SELECT count(*) FROM {missing}").fetchall()
        if not count:
            return
        wanted = connection.cursor().execute(f"SELECT position, image_hash FROM {missing} ORDER BY position")
        for made in self._made(iter(wanted.fetchone, None), count):
            connection.register("made", made)
            connection.execute("INSERT INTO perceptual FROM made")
        from duckdb import IOException  # optional, as in score_folder

        more = f"UNION ALL (SELECT * FROM {known} ANTI JOIN perceptual USING {KEY})" if known else ""
        try:
            with replacing(kept) as temporary:
                connection.execute(f"COPY (FROM perceptual {more}) TO {text(str(temporary))} (FORMAT parquet)")
        except (OSError, IOException) as error:
            logger.warning("%s can't be written (%s): the images are hashed again next time", kept, error)

    def _made(self, wanted: Iterator[tuple[int, str]], count: int) -> Iterator[pa.Table]:
        if self.data is None:
            raise InputError(
                f"{count:,} rows have no perceptual hash of their image yet, and the data is not at hand: run `vfl"
                " select filter` with these settings first, which keeps the hashes beside the scores."
            )
        rows = enumerate(self.data.rows(Unnamed()))
        shown: dict[str, Any] = {"total": count, "unit": " images", "leave": False, "delay": 1}
        with ThreadPoolExecutor(WORKERS, "hash") as pool, progress_bar(desc="hashing images", **shown) as bar:
            while chunk := list(islice(wanted, CHUNK)):
                bits = list(pool.map(_bits, [_row_at(rows, position) for position, _ in chunk]))
                positions, hashes = zip(*chunk, strict=True)
                yield pa.table([positions, hashes, pa.array(bits, pa.uint64())], SCHEMA)
                bar.update(len(chunk))


def _known(kept: Path) -> str:
    """In SQL, the hashes that were kept; "" where there are none, or their file is damaged."""
    try:
        pq.read_schema(kept)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, pa.ArrowException) as error:
        logger.warning("%s can't be read (%s): the images are hashed anew", kept, error)
        return ""
    return f"read_parquet({text(str(kept))})"


def _row_at(rows: Iterator[tuple[int, Sample | BadRow]], position: int) -> Sample | BadRow:
    for number, row in rows:
        if number == position:
            return row
    raise InputError(f"The data ends before row {position + 1}, which was scored. Score this data anew.")


def _bits(row: Sample | BadRow) -> int:
    try:
        if isinstance(row, BadRow):
            raise InputError(row.reason)
        return perceptual(row.images[0].open())
    except InputError as error:
        raise InputError(f"{row.where} was scored and can't be used now: {error}") from error
