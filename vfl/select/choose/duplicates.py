"""Rows that say and show the same, or nearly so, found by the hashes in the score table.

*Exact*: the same text (normalised) and the same images. *Near*: the same text, and images whose perceptual hashes
differ in at most so many of 64 bits. Of several such rows the first in the data stays. *Diversity* leaves a row out
that has a better one in its class with such an image, whatever their texts.

A row is left out if any row before it is close, left out itself or not; so a chain of close rows leaves its first.
Pairs within b bits are found by b + 1 bands of the hash, one of which they must share.
"""

from itertools import pairwise
from typing import Any, Literal

from vfl.errors import InputError

Duplicates = Literal["keep", "exact", "near"]
MOST_BITS = 15
BITS = 64
FIRST = "('0x' || substr(image_hash, 1, 16))::UBIGINT"
OTHERS = "regexp_replace(substr(image_hash, 17), ':[0-9a-f]+', '', 'g')"
"""Of an image_hash, "perceptual:exact" for each image: the first image's perceptual hash, and those of the others."""


def find_duplicates(connection: Any, kind: Duplicates, bits: int, view: str = "classed") -> int:
    """A table `duplicate(position)` of rows to leave out; how many there are."""
    connection.execute("CREATE OR REPLACE TABLE duplicate (position BIGINT)")
    if kind == "keep":
        return 0
    connection.execute(f"""
        INSERT INTO duplicate SELECT position FROM {view} SEMI JOIN (
            SELECT text_hash, image_hash FROM {view} WHERE text_hash IS NOT NULL
            GROUP BY text_hash, image_hash HAVING count(*) > 1) USING (text_hash, image_hash)
        QUALIFY row_number() OVER (PARTITION BY text_hash, image_hash ORDER BY position) > 1""")
    if kind == "near":
        connection.execute(f"""
            CREATE OR REPLACE TABLE shown AS
            SELECT position AS place, text_hash || {OTHERS} AS part, {FIRST} AS bits
            FROM {view} ANTI JOIN duplicate USING (position)
            WHERE image_hash <> '' AND text_hash IS NOT NULL""")
        _close(connection, bits)
        connection.execute("INSERT INTO duplicate SELECT place FROM close")
    (count,) = connection.execute("SELECT count(*) FROM duplicate").fetchone()
    return int(count)


def find_alike(connection: Any, bits: int, ordered: str, view: str = "classed") -> int:
    """A table `close(place)` of the rows of `ordered` (position, stratum, place) that have a better, similar one."""
    connection.execute(f"""
        CREATE OR REPLACE TABLE shown AS
        SELECT place, stratum || {OTHERS} AS part, {FIRST} AS bits
        FROM {ordered} JOIN {view} USING (position) WHERE image_hash <> ''""")
    return _close(connection, bits)


def check_bits(bits: int, name: str) -> None:
    """Raise InputError unless so many bits can be searched for."""
    if not 0 <= bits <= MOST_BITS:
        raise InputError(f"{name} is {bits}; expected 0 to {MOST_BITS} of the {BITS} bits of an image's hash.")


def _close(connection: Any, bits: int) -> int:
    """From `shown` (place, part, bits) the table `close` of places with an earlier one in their part within `bits`."""
    connection.execute(
        "CREATE OR REPLACE TABLE first AS SELECT part, bits, min(place) AS place FROM shown GROUP BY ALL"
    )
    connection.execute("CREATE OR REPLACE TABLE close AS SELECT place FROM shown ANTI JOIN first USING (place)")
    if bits:
        edges = [round(n * BITS / (bits + 1)) for n in range(bits + 2)]
        for start, end in pairwise(edges):
            band = f"(bits >> {start}) & {2 ** (end - start) - 1}"
            connection.execute(f"""
                INSERT INTO close
                WITH banded AS (SELECT *, {band} AS band FROM first)
                SELECT DISTINCT later.place FROM banded AS later JOIN banded AS earlier
                    ON later.part = earlier.part AND later.band = earlier.band AND later.place > earlier.place
                WHERE bit_count(xor(later.bits, earlier.bits)) <= {bits}""")
    (count,) = connection.execute("SELECT count(DISTINCT place) FROM close").fetchone()
    return int(count)
