"""How many of a pool's wrong answers `balanced` finds, by the loss alone and by what the image speaks against as well.

    python -m experiments.selection.found --out runs/selection      # of the settings whose scores are there

Of a setting: the share of the scored rows that the base answers, how many answers are wrong, and of the rows that are
taken for wrong how many are.
"""

import argparse
from pathlib import Path

from experiments.selection.experiment import SETTINGS, lines_of
from vfl.select.choose.classes import ClassConfig, create_view
from vfl.select.choose.profiles import find_clusters
from vfl.select.choose.suspects import AGAINST, find_suspects
from vfl.select.shards.score_folder import database, open_scores

NEVER = 1e9  # nats
TAKEN = "SELECT uid FROM classed SEMI JOIN suspect USING (position)"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/selection"))
    out: Path = parser.parse_args().out
    print("| setting | answered | wrong answers | found by the loss | and by the image |\n|" + " --- |" * 5)
    for name, setting in SETTINGS.items():
        pool = out / f"{setting.pool}-{setting.seed}"
        scores = out / f"scores-{pool.name}-{setting.base}"
        if scores.exists():
            wrong = {row["id"] for row in lines_of(pool / "pool.jsonl") if row["truth"] == "wrong"}
            answered, signs = found(scores)
            told = " | ".join(f"{len(taken & wrong)} of {len(taken)}" for taken in signs)
            print(f"| {name} | {answered:.0%} | {len(wrong)} | {told} |")


def found(scores: Path) -> tuple[float, list[set[str]]]:
    """The share of rows that are answered, and the uids that are taken for wrong by the first sign, and by both."""
    folder = open_scores(scores)
    with database("1GB", 1) as connection:
        create_view(connection, folder, ClassConfig())
        find_clusters(connection, folder)
        (answered,) = connection.execute("SELECT avg(solved::INT) FROM classed WHERE kind = 'vision'").fetchone()
        signs = []
        for against in (NEVER, AGAINST):
            find_suspects(connection, against)
            signs.append({uid for (uid,) in connection.execute(TAKEN).fetchall()})
    return float(answered), signs


if __name__ == "__main__":
    main()
