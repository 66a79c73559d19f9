"""How many of a pool's wrong answers `balanced` finds, by the loss alone and by what the image speaks against as well.

    python -m experiments.selection.found --out runs/selection      # of the settings whose scores are there

Of a setting: rows that are taken for wrong, how many of them are, and how many wrong ones there are.
"""

import argparse
from pathlib import Path
from unittest.mock import patch

from experiments.selection.experiment import SETTINGS, lines_of
from vfl.select.choose import suspects
from vfl.select.choose.classes import ClassConfig, create_view
from vfl.select.choose.profiles import find_clusters
from vfl.select.shards.score_folder import database, open_scores

NEVER = 1e9  # nats
TAKEN = "SELECT uid FROM classed SEMI JOIN suspect USING (position)"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/selection"))
    out: Path = parser.parse_args().out
    print("| setting | wrong answers | found by the loss | and by the image |\n| --- | --- | --- | --- |")
    for name, setting in SETTINGS.items():
        pool = out / f"{setting.pool}-{setting.seed}"
        scores = out / f"scores-{pool.name}-{setting.base}"
        if scores.exists():
            wrong = {row["id"] for row in lines_of(pool / "pool.jsonl") if row["truth"] == "wrong"}
            told = " | ".join(f"{len(one & wrong)} of {len(one)}" for one in taken(scores))
            print(f"| {name} | {len(wrong)} | {told} |")


def taken(scores: Path) -> list[set[str]]:
    """The uids that are taken for wrong by the first sign, and by both."""
    folder = open_scores(scores)
    with database("1GB", 1) as connection:
        create_view(connection, folder, ClassConfig())
        find_clusters(connection, folder)
        found = []
        for against in (NEVER, suspects.AGAINST):
            with patch.object(suspects, "AGAINST", against):
                suspects.find_suspects(connection)
            found.append({uid for (uid,) in connection.execute(TAKEN).fetchall()})
    return found


if __name__ == "__main__":
    main()
