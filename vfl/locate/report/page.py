"""The text of report.html and compare.html: self-contained pages whose charts need no script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vfl.functionmap import FunctionEntry, FunctionMap
from vfl.io.layers import runs
from vfl.locate.recovery import score, total
from vfl.locate.report import sheets
from vfl.locate.report.compare import Comparison
from vfl.locate.report.examples import Example
from vfl.report import charts
from vfl.report.charts import Ink, Tick
from vfl.report.page import environment, flat
from vfl.report.scales import Number
from vfl.report.sheet import Sheet
from vfl.report.words import NONE, headline, layer_list, percent

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Band:
    """Chosen layers next to each other, as a stretch of the chart's width in per cent."""

    left: float
    width: float


@dataclass(frozen=True)
class Panel:
    """One function, ready to be drawn."""

    name: str
    entry: FunctionEntry
    ink: Ink
    layers: str
    planted: str | None
    headline: tuple[float, tuple[float, float], str] | None
    changed: str
    interval: str
    followed: str
    control: str | None
    effect: str | None
    effect_range: tuple[float, float]
    effect_zero: float
    chosen: list[Band]
    truth: list[Band]
    dots: list[tuple[float, float]]
    together: list[tuple[float, float, float]]  # left, right, height of each block's joint rate
    cells: list[tuple[float, str, str, bool]]  # left, colour, what it says, chosen
    distance: str | None  # of swapped states from ordinary ones
    distance_top: float
    distance_one: float  # where 1 lies
    untrained: str | None  # the curve with random weights
    null: str | None  # what the largest of exchangeable layers reaches
    states: list[tuple[str, str]]  # each layer's state, and what it says
    proofs: list[tuple[str, str, str]]  # of each chosen layer: found again, and lost after which deletions
    lost: str | None  # after which deletions the first of them is
    examples: list[Example]
    sheet: Sheet
    effect_sheet: Sheet | None
    distance_sheet: Sheet | None


def render_report(
    fmap: FunctionMap,
    shown: Mapping[str, Sequence[Example]],
    *,
    planted: Mapping[str, Sequence[int]] | None = None,
    note: str = "",
) -> str:
    """The page as text; everything that comes from data or models is escaped by the template."""
    ink = charts.inks(names := by_depth(fmap))
    scores = score(fmap, planted) if planted else {}
    return (
        environment(HERE)
        .get_template("report.html.jinja")
        .render(
            fmap=fmap,
            panels=[_panel(fmap, name, ink[name], list(shown.get(name, ())), planted) for name in names],
            curves_sheet=sheets.all_curves(fmap, names),
            rates_sheet=sheets.all_rates(fmap, names),
            order=fmap.order(),
            ticks=charts.layer_ticks(fmap.model.num_layers),
            rate_ticks=[Tick(charts.y_of(rate / 100), str(rate)) for rate in (0, 50, 100)],
            settings=list(flat(fmap.settings)),
            score=total(scores) if scores else None,
            note=note,
        )
    )


def render_comparison(comparison: Comparison) -> str:
    """The page of `vfl compare` as text."""
    page = environment(HERE).get_template("compare.html.jinja")
    return page.render(
        labels=comparison.labels,
        maps=comparison.maps,
        functions=comparison.functions,
        sheet=sheets.peaks(comparison),
        ticks=[Tick(100 * depth, f"{depth:g}") for depth in (0, 0.25, 0.5, 0.75, 1)],
        peaks=comparison.peaks,
        agreements=comparison.agreements,
        mean_tau=comparison.mean_tau,
        ink=charts.inks(comparison.functions),
    )


def by_depth(fmap: FunctionMap) -> list[str]:
    """Functions from shallow to deep, those without a peak last."""
    order = fmap.order()
    return order + [name for name in fmap.functions if name not in order]


def _panel(
    fmap: FunctionMap, name: str, ink: Ink, shown: list[Example], planted: Mapping[str, Sequence[int]] | None
) -> Panel:
    entry, depth = fmap.functions[name], fmap.model.num_layers
    effect = entry.logprob_effect
    known = [value for value in effect or () if value is not None]
    low, high = (min(0.0, *known), max(0.0, *known)) if known else (0.0, 1.0)
    high = high + 0.06 * (high - low) if high > low else low + 1  # room for the line's own width
    truth = sorted((planted or {}).get(name, ()))
    stands_out = _stands_out(entry)
    ratio = entry.off_manifold.ratio if entry.off_manifold else []
    furthest = max([1.2, *(1.1 * value for value in ratio if value is not None)])
    return Panel(
        name=name,
        entry=entry,
        ink=ink,
        layers=layer_list(entry.layers),
        planted=layer_list(truth) if truth else None,
        headline=headline(entry),
        changed=charts.line(entry.changed),
        interval=charts.area(entry.ci_low, entry.ci_high),
        followed=charts.line(entry.followed_source),
        control=charts.line(entry.control) if entry.control else None,
        effect=charts.line(effect, low, high) if effect else None,
        effect_range=(low, high),
        effect_zero=charts.y_of(0.0, low, high),
        chosen=_bands(entry.layers, depth),
        truth=_bands(truth, depth),
        dots=[(charts.x_of(k, depth), charts.y_of(entry.rate(k))) for k in entry.layers],
        together=[
            (round(b.layers[0] * 100 / depth, 3), round((b.layers[-1] + 1) * 100 / depth, 3), charts.y_of(b.changed))
            for b in entry.blocks
        ],
        cells=[
            (
                round(k * 100 / depth, 3),
                charts.shade(rate),
                f"{name}, layer {k}: " + ("not swept" if rate is None else f"{percent(rate)} changed"),
                k in entry.layers,
            )
            for k, rate in enumerate(entry.changed)
        ],
        examples=shown,
        distance=charts.line(ratio, 0.0, furthest) if ratio else None,
        distance_top=furthest,
        distance_one=charts.y_of(1.0, 0.0, furthest),
        untrained=charts.line(entry.random_weights.changed) if entry.random_weights else None,
        null=charts.line(stands_out) if stands_out else None,
        states=_states(name, entry),
        proofs=_proofs(entry),
        lost=_first_lost(entry),
        sheet=sheets.one_function(name, entry, stands_out),
        effect_sheet=sheets.one_curve(f"{name} log-odds drop", "log-odds drop", effect, "nats") if effect else None,
        distance_sheet=sheets.one_curve(f"{name} distance", "distance of swapped states, ordinary ones 1", ratio)
        if ratio
        else None,
    )


def _stands_out(entry: FunctionEntry) -> list[Number] | None:
    """The line above which a layer stands out: what permuted layers reach beyond the control, on top of the control."""
    null = entry.layer_null
    if null is None:
        return None
    control = entry.control or [None if rate is None else 0.0 for rate in entry.changed]
    return [None if rate is None else min(1.0, max(0.0, rate + null.threshold)) for rate in control]


def _states(name: str, entry: FunctionEntry) -> list[tuple[str, str]]:
    if entry.equivalence is None:
        return []
    out = []
    for k, (state, most) in enumerate(zip(entry.equivalence.states, entry.equivalence.at_most, strict=True)):
        bound = "not swept" if most is None else f"at most {percent(most)}"
        out.append((state.replace(" ", "-"), f"{name}, layer {k}: {state} ({bound} of the answers)"))
    return out


def _proofs(entry: FunctionEntry) -> list[tuple[str, str, str]]:
    if entry.deletion is None:
        return []
    again = [percent(share) for share in entry.stability] if entry.stability else [NONE] * len(entry.layers)
    return [(str(layer), again[n], _lost(entry, n)) for n, layer in enumerate(entry.layers)]


def _first_lost(entry: FunctionEntry) -> str | None:
    """Of the chosen layer that the fewest deletions lose."""
    if entry.deletion is None:
        return None
    most = entry.deletion.at_most
    return _lost(entry, most.index(min(most)))


def _lost(entry: FunctionEntry, place: int) -> str:
    assert entry.deletion is not None
    of_groups = entry.groups is not None
    return entry.deletion.in_words(place, entry.groups or entry.kept, "groups" if of_groups else "pairs")


def _bands(layers: Sequence[int], depth: int) -> list[Band]:
    return [Band(round(run[0] * 100 / depth, 3), round(len(run) * 100 / depth, 3)) for run in runs(layers)]
