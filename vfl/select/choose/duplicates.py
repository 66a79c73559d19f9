"""Rows that say and show the same, or nearly so, found by the hashes in the score table.

*Exact*: the same text (normalised) and the same images. *Near*: the same text, and images whose perceptual hashes
differ in at most so many of 64 bits. Of several such rows the first in the data stays. *Diversity* leaves a row out
that has a better one in its class with such an image, whatever their texts.

A row is left out if any row before it is close, left out itself or not; so a chain of close rows leaves its first.
Only rows that share their text, or class, with another need a perceptual hash; see vfl.select.choose.perceptual. Pairs
are found by multi-index hashing (Norouzi et al. 2012, arXiv 1307.2982), with all that is close and nothing else: of
b + k bands of the hash, two that differ in b bits at most share k, so that only rows are compared that share some k
of them. The more rows, the larger a k is worth its number of choices of bands, and time stays about in proportion.
"""

from itertools import combinations, pairwise
from math import comb
from typing import Any, Literal

from vfl.errors import InputError
from vfl.select.choose.perceptual import Images

Duplicates = Literal["keep", "exact", "near"]
MOST_BITS = 15
BITS = 64
MOST_SHARED = 4
LOOK = 30
"""Comparisons of two hashes that putting a row into a table for a mask costs."""
EXACT = "regexp_replace(image_hash, '[0-9a-f]+:', '', 'g')"
"""Of an image_hash: older versions put each image's perceptual hash and a colon before its exact one."""
OTHERS = f"regexp_replace({EXACT}, '^[^,]*', '')"
"""Of the images behind the first, their exact hashes."""


def find_duplicates(connection: Any, kind: Duplicates, bits: int, images: Images, view: str = "classed") -> int:
    """A table `duplicate(position)` of rows to leave out; how many there are."""
    connection.execute("CREATE OR REPLACE TABLE duplicate (position BIGINT)")
    if kind == "keep":
        return 0
    connection.execute(f"""
        INSERT INTO duplicate SELECT position FROM {view} SEMI JOIN (
            SELECT text_hash, {EXACT} AS shown FROM {view} WHERE text_hash IS NOT NULL
            GROUP BY ALL HAVING count(*) > 1) AS repeated ON {view}.text_hash = repeated.text_hash AND {EXACT} = shown
        QUALIFY row_number() OVER (PARTITION BY text_hash, {EXACT} ORDER BY position) > 1""")
    if kind == "near":
        rows = f"""(SELECT position AS place, position, image_hash, text_hash || {OTHERS} AS part
            FROM {view} ANTI JOIN duplicate USING (position)
            WHERE image_hash <> '' AND text_hash IS NOT NULL)"""
        _show(connection, rows, images)
        _close(connection, bits)
        connection.execute("INSERT INTO duplicate SELECT place FROM close")
    (count,) = connection.execute("SELECT count(*) FROM duplicate").fetchone()
    return int(count)


def find_alike(connection: Any, bits: int, ordered: str, images: Images, view: str = "classed") -> int:
    """A table `close(place)` of the rows of `ordered` (position, stratum, place) that have a better, similar one."""
    rows = f"""(SELECT place, position, image_hash, stratum || {OTHERS} AS part
        FROM {ordered} JOIN {view} USING (position) WHERE image_hash <> '')"""
    _show(connection, rows, images)
    return _close(connection, bits)


def _show(connection: Any, rows: str, images: Images) -> None:
    """The table `shown` (place, part, bits) of those `rows` (place, position, image_hash, part) that share a part."""
    connection.execute(f"CREATE OR REPLACE TABLE together AS FROM {rows}")
    connection.execute("""
        DELETE FROM together WHERE part NOT IN (SELECT part FROM together GROUP BY part HAVING count(*) > 1)""")
    images.hash(connection, "together")
    connection.execute("""
        CREATE OR REPLACE TABLE shown AS
        SELECT place, part, bits FROM together JOIN perceptual USING (position)""")


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
        (rows,) = connection.execute(
            "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM first GROUP BY part)"
        ).fetchone()
        for mask in masks(bits, rows):
            band = f"bits & {mask}::UBIGINT"
            connection.execute(f"""
                INSERT INTO close
                WITH banded AS (SELECT *, {band} AS band FROM first)
                SELECT DISTINCT later.place FROM banded AS later JOIN banded AS earlier
                    ON later.part = earlier.part AND later.band = earlier.band AND later.place > earlier.place
                WHERE bit_count(xor(later.bits, earlier.bits)) <= {bits}""")
    (count,) = connection.execute("SELECT count(DISTINCT place) FROM close").fetchone()
    return int(count)


def masks(bits: int, rows: int) -> list[int]:
    """Bits of the hash, of which those of one mask agree in any two hashes within `bits`, cheapest for so many rows."""
    shared = min(range(1, MOST_SHARED + 1), key=lambda shared: _comparisons(bits, shared, rows))
    edges = [round(n * BITS / (bits + shared)) for n in range(bits + shared + 1)]
    bands = [2**end - 2**start for start, end in pairwise(edges)]
    return [sum(chosen) for chosen in combinations(bands, shared)]


def _comparisons(bits: int, shared: int, rows: int) -> float:
    """About how many rows are looked at: each once a mask, and in pairs those that agree in it by chance."""
    agreeing = 2.0 ** (BITS * shared / (bits + shared))
    return comb(bits + shared, shared) * rows * (LOOK + rows / 2 / agreeing)
