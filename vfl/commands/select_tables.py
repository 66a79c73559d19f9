"""What `vfl select` prints of a subset."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text


def show_subset(manifest: Mapping[str, Any], out: Path) -> None:
    """The subset as a table, and what to do with it."""
    table = Table(title=Text(f"{manifest['rows']:,} of {manifest['scored']:,} scored rows"), box=SIMPLE_HEAD)
    for heading in ("class", "rows", "unsolved", "chosen", "kept"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for name, counts in manifest["counts"]["class"].items():
        kept = f"{100 * counts['chosen_rows'] / max(counts['rows'], 1):.1f} %"
        table.add_row(Text(name), f"{counts['rows']:,}", f"{counts['unsolved']:,}", f"{counts['chosen_rows']:,}", kept)
    Console().print(table)
    show_coverage(manifest["coverage"])
    for what, count in manifest.get("balance", {}).get("left_out", {}).items():
        say(f"Left out or last, {what}: {count:,} rows")
    budget = manifest["budget"]
    say(f"Budget: {budget['spent']:,} of {budget['limit']:,} {budget['unit']}")
    for note in manifest["notes"]:
        say(f"Note: {note}")
    if counted := manifest.get("token_weights"):
        share = f"{counted['kept']:,} of {counted['tokens']:,} answer tokens count"
        say(f"Token weights: {share} in training with data.token_weights={out / counted['file']}")
    for file in manifest["files"]:
        say(f"Data: {out / file}")
    if manifest["images"]:
        say(f"Images that rows name are in {manifest['images']}")


def show_coverage(coverage: Mapping[str, Any]) -> None:
    """Answers and kinds of question of the subset beside those of the data, and how much is unsolved in both."""
    for title, heading in (("answers", "answer"), ("openings", "questions that begin")):
        if not coverage[title]:
            continue
        table = Table(box=SIMPLE_HEAD)
        for name in (heading, "data", "subset"):
            table.add_column(name, justify="left" if name == heading else "right")
        for stratum in coverage[title]:
            shares = (stratum["rows"] / max(coverage["rows"], 1), stratum["chosen"] / max(coverage["chosen"], 1))
            table.add_row(Text(stratum["text"]), *(f"{100 * share:.1f} %" for share in shares))
        Console().print(table)
    unsolved = coverage["unsolved"]
    say(f"Unsolved: {100 * unsolved['data']:.1f} % of the data, {100 * unsolved['subset']:.1f} % of the subset")


def say(line: str, *, error: bool = False) -> None:
    """A line for a person, or for the next command."""
    Console(stderr=error).print(line, markup=False, highlight=False, soft_wrap=True)
