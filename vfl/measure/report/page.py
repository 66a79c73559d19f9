"""The text of a measurement's report.html: self-contained, its scripts are the lens and what all reports have."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vfl.measure.guide import guide_of, ordered
from vfl.measure.metrics_file import Metrics
from vfl.measure.panels import Drawn, axis_of_dots, drawn
from vfl.metrics.spec import Metric
from vfl.report.charts import Tick, inks
from vfl.report.cloud import CloudChart, cloud_chart
from vfl.report.dots import DotRow, dot_rows, dot_sheet
from vfl.report.heat import Heat, HeatChart, heat_chart
from vfl.report.lines import Chart, chart, lines_of
from vfl.report.page import environment, flat, script_hash
from vfl.report.sheet import Sheet

HERE = Path(__file__).resolve().parent
# What could end the element or, in old readers of JSON in scripts, the line.
UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True)
class Section:
    """One metric, ready to be shown."""

    name: str
    guide: Metric
    n: int
    seconds: float
    charts: list[Chart]
    heats: list[HeatChart]
    clouds: list[CloudChart]
    dots: list[DotRow]
    dot_ticks: list[Tick]
    dot_axis: str
    dot_sheet: Sheet
    drawn: Drawn
    options: list[tuple[str, str]]


def render(
    metrics: Metrics,
    pictures: Sequence[dict[str, Any]] = (),
    notes: Sequence[str] = (),
    beside: Sequence[str] = (),
) -> str:
    """The page as text; what comes from data or models is escaped, by the template or in the lens' JSON."""
    script = (HERE / "lens.js").read_text(encoding="utf-8")
    return (
        environment(HERE)
        .get_template("measure.html.jinja")
        .render(
            metrics=metrics,
            sections=[_section(metrics, name) for name in ordered(list(metrics.metrics))],
            left_out=[(guide_of(name), reason) for name, reason in metrics.not_measured.items()],
            notes=notes,
            beside=beside,
            settings=list(flat(metrics.settings)),
            pictures=pictures,
            pictures_json=Markup(safe_json(list(pictures))),
            script=Markup(script),
            script_hash=script_hash(script),
        )
    )


def safe_json(content: Any) -> str:
    """JSON that can stand in a script element whatever its texts hold."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return "".join(UNSAFE.get(letter, letter) for letter in text)


def _section(metrics: Metrics, name: str) -> Section:
    result, guide = metrics.metrics[name], guide_of(name)
    content = drawn(result, guide, metrics.data.functions)
    ink = inks(lines_of(content.panels))
    dots, dot_ticks = dot_rows(content.dots) if content.dots else ([], [])
    heats = [_heat(heat) for heat in content.heats]
    return Section(
        name=name,
        guide=guide,
        n=result["n"],
        seconds=metrics.seconds.get(name, 0.0),
        charts=[ready for panel in content.panels if (ready := chart(panel, ink))],
        heats=[heat for heat in heats if heat],
        clouds=[points for cloud in content.clouds if (points := cloud_chart(cloud))],
        dots=dots,
        dot_ticks=dot_ticks,
        dot_axis=axis_of_dots(content.dots, guide),
        dot_sheet=dot_sheet(guide.title, content.dots),
        drawn=content,
        options=list(flat(result["options"])),
    )


def _heat(heat: Heat) -> HeatChart | None:
    return heat_chart(heat.title, heat.rows, ("layer", range(len(heat.rows))), ("head", range(len(heat.rows[0]))))
