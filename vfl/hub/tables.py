"""The tables of the cards, in Markdown."""

from collections.abc import Mapping
from typing import Any

from vfl.functionmap import FunctionEntry, FunctionMap
from vfl.io.layers import layer_list
from vfl.report.markdown import markdown_table


def map_table(fmap: FunctionMap) -> str:
    """A function a line: its layers, and how many answers a swap of them changes."""
    rows = [(name, layer_list(entry.layers) or "none", _changed(entry)) for name, entry in fmap.functions.items()]
    return markdown_table(("function", "layers", "answers that they change"), rows)


def _changed(entry: FunctionEntry) -> str:
    share = entry.explained
    if share is None and len(entry.layers) == 1:
        share = entry.rate(entry.layers[0])
    return f"{entry.kept} asked" if share is None else f"{share:.0%} of {entry.kept}"


def subset_table(manifest: Mapping[str, Any]) -> str:
    """What was taken: of each class, where the manifest counts them."""
    counts = manifest.get("counts", {}).get("class", {})
    if not counts:
        return f"{manifest['rows']:,} rows."
    rows = [(name, f"{count['rows']:,}", f"{count['chosen_rows']:,}") for name, count in counts.items()]
    return markdown_table(("class", "rows", "chosen"), rows)
