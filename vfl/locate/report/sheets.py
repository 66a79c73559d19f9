"""The numbers of a map's figures, as its report hands them on."""

from collections.abc import Sequence

from vfl.functionmap import FunctionEntry, FunctionMap
from vfl.locate.report.compare import Comparison
from vfl.report.scales import Number
from vfl.report.sheet import Cell, Sheet, by_place, with_unit
from vfl.report.words import SHARE

CHANGED, FOLLOWED, CONTROL = "changed", "turned to the source's answer", "changed by the control swap"

Curves = list[tuple[str, Sequence[Number] | None]]


def all_curves(fmap: FunctionMap, names: Sequence[str]) -> Sheet:
    """Every function's share of changed answers, with its interval."""
    curves: Curves = []
    for name in names:
        entry = fmap.functions[name]
        curves += [(name, entry.changed), (f"{name} low", entry.ci_low), (f"{name} high", entry.ci_high)]
    return _by_layer("answers changed", curves)


def all_rates(fmap: FunctionMap, names: Sequence[str]) -> Sheet:
    """The same without intervals, as the heat map shows it."""
    return _by_layer("layer by function", [(name, fmap.functions[name].changed) for name in names])


def one_function(name: str, entry: FunctionEntry, stands_out: Sequence[Number] | None) -> Sheet:
    """All of a function's curves by layer, then its blocks: a row from the `first` to the `last` layer of each."""
    sure = entry.equivalence
    curves: Curves = [
        (CHANGED, entry.changed),
        (f"{CHANGED} low", entry.ci_low),
        (f"{CHANGED} high", entry.ci_high),
        (FOLLOWED, entry.followed_source),
        (CONTROL, entry.control),
        ("changed, random weights", entry.random_weights.changed if entry.random_weights else None),
        ("a layer above this stands out", stands_out),
        ("changed at most", sure.at_most if sure else None),
    ]
    by_layer = _by_layer(f"{name} by layer", curves)
    rows: list[list[Cell]] = [
        [layer, layer, "yes" if layer in entry.layers else "no", sure.states[layer] if sure else None, *row[1:]]
        for layer, row in enumerate(by_layer.rows)
    ]
    headings = ["first", "last", "chosen", "state", *by_layer.headings[1:]]
    for block in (*entry.blocks, *entry.gaps):
        rates = {CHANGED: block.changed, FOLLOWED: block.followed_source, CONTROL: block.control}
        rates |= {f"{CHANGED} low": block.ci[0], f"{CHANGED} high": block.ci[1]}
        cells = {with_unit(what, SHARE): rate for what, rate in rates.items()}
        chosen = "yes" if block in entry.blocks else "no"
        rows.append([block.layers[0], block.layers[-1], chosen, *(cells.get(heading) for heading in headings[3:])])
    return Sheet(by_layer.title, headings, rows)


def one_curve(title: str, what: str, curve: Sequence[Number], unit: str = "") -> Sheet:
    """A curve by layer that is no share."""
    return by_place(title, "layer", [(with_unit(what, unit), range(len(curve)), curve)])


def peaks(comparison: Comparison) -> Sheet:
    """Peak layers of several maps, at relative depth too."""
    rows: list[list[Cell]] = [
        [label, name, fmap.functions[name].peak, depth[name]]
        for label, fmap, depth in zip(comparison.labels, comparison.maps, comparison.peaks, strict=True)
        for name in comparison.functions
        if name in depth
    ]
    return Sheet("peak layers", ["model", "function", "peak layer", "relative depth (0 to 1)"], rows)


def _by_layer(title: str, curves: Curves) -> Sheet:
    """Shares by layer; a curve that the map lacks is left out."""
    known = [(with_unit(name, SHARE), range(len(curve)), curve) for name, curve in curves if curve]
    return by_place(title, "layer", known)
