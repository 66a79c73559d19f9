"""Example pairs for the report: both images, and the answer with each layer swapped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from PIL import ImageDraw

from vfl.functionmap import FunctionMap
from vfl.probes import match
from vfl.probes.pair import Pair
from vfl.report.thumbnail import data_uri, shrunk
from vfl.report.words import layer_list, shortened

LONGEST_ANSWER = 120
State = Literal["same", "changed", "source", "unswept"]


@dataclass(frozen=True)
class Swapped:
    """The answer when `layers` were swapped; neighbouring layers with one answer stand together."""

    layers: str
    answer: str
    state: State


@dataclass(frozen=True)
class Example:
    pair_id: str
    question: str
    answer: str
    source_answer: str
    image: str | None  # data URI
    source_image: str | None
    together: list[Swapped]  # the named blocks, widest first
    chosen: list[Swapped]  # the chosen layers alone
    layers: list[Swapped]  # every single layer, runs of one answer joined
    strip: list[State]  # one state a layer


def examples(
    fmap: FunctionMap, records: pa.Table, pairs: Sequence[Pair], per_function: int = 2
) -> dict[str, list[Example]]:
    """A few kept pairs of each function, those first whose answer turned to the source's at a chosen layer."""
    pair_of = {(pair.function, pair.id): pair for pair in pairs}
    shown = {}
    for name in fmap.functions:
        telling = _telling(fmap, name, records, per_function)
        shown[name] = [_example(fmap, name, rows, pair_of.get((name, pair_id))) for pair_id, rows in telling]
    return shown


def _telling(fmap: FunctionMap, name: str, records: pa.Table, most: int) -> list[tuple[str, list[dict[str, Any]]]]:
    rows = records.filter((pc.field("function") == name) & pc.field("kept") & (pc.field("swap") != "control"))
    entry = fmap.functions[name]
    chosen = {(k, k) for k in entry.layers} | {(block.layers[0], block.layers[-1]) for block in entry.blocks}
    by_pair: dict[str, int] = {}
    columns = (
        rows[column].to_pylist() for column in ("pair_id", "first", "last", "swap", "changed", "followed_source")
    )
    for pair_id, first, last, swap, changed, followed in zip(*columns, strict=True):
        tells = changed + 2 * bool(followed) if swap == "source" and (first, last) in chosen else 0
        by_pair[pair_id] = max(by_pair.get(pair_id, 0), tells)
    best = sorted(by_pair, key=lambda pair_id: (-by_pair[pair_id], pair_id))[:most]
    return [(pair_id, rows.filter(pc.field("pair_id") == pair_id).to_pylist()) for pair_id in best]


def _example(fmap: FunctionMap, name: str, rows: list[dict[str, Any]], pair: Pair | None) -> Example:
    entry = fmap.functions[name]
    by_block = {(row["first"], row["last"]): row for row in rows if row["swap"] == "source"}
    single = [by_block[k, k] for k in range(fmap.model.num_layers) if (k, k) in by_block]
    together = [by_block[b.layers[0], b.layers[-1]] for b in entry.blocks if (b.layers[0], b.layers[-1]) in by_block]
    together.sort(key=lambda row: (row["first"] - row["last"], row["first"]))
    return Example(
        pair_id=rows[0]["pair_id"],
        question=pair.question if pair else "",
        answer=shortened(rows[0]["baseline_answer"], LONGEST_ANSWER),
        source_answer=shortened(rows[0]["source_baseline"], LONGEST_ANSWER),
        image=_thumbnail(pair, "image") if pair else None,
        source_image=_thumbnail(pair, "source_image") if pair else None,
        together=[_swapped([row]) for row in together[:3]],
        chosen=_joined([row for row in single if row["first"] in entry.layers]),
        layers=_joined(single),
        strip=[_state(by_block[k, k]) if (k, k) in by_block else "unswept" for k in range(fmap.model.num_layers)],
    )


def _joined(rows: Sequence[Mapping[str, Any]]) -> list[Swapped]:
    """Layers in a row that give the same answer, as one."""
    return [_swapped(list(run)) for _, run in groupby(rows, key=lambda row: (row["answer"], _state(row)))]


def _swapped(run: list[Mapping[str, Any]]) -> Swapped:
    layers = layer_list(sorted({k for row in run for k in range(row["first"], row["last"] + 1)}))
    return Swapped(layers=layers, answer=shortened(run[0]["answer"], LONGEST_ANSWER), state=_state(run[0]))


def _state(row: Mapping[str, Any]) -> State:
    return "source" if row["followed_source"] and row["changed"] else "changed" if row["changed"] else "same"


def _thumbnail(pair: Pair, which: Literal["image", "source_image"]) -> str:
    """A small data URI of the image, with the asked-for place drawn in where the answer is a box or a point."""
    whole = pair.open(which)
    image = shrunk(whole)
    scale = image.width / whole.width
    place = match.read(pair.match, pair.answer if which == "image" else pair.source_answer)
    if pair.match in ("box", "point") and isinstance(place, tuple):
        corners = [float(value) * scale for value in place]
        x0, y0, x1, y1 = corners if len(corners) == 4 else (n + d for d in (-4, 4) for n in corners)
        ImageDraw.Draw(image).rectangle((x0, y0, x1, y1), outline="#D55E00", width=2)
    return data_uri(image)
