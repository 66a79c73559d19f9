"""The text of a measurement's report.html: self-contained, its one script is the lens and allowed by its hash."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vfl.measure.metrics_file import Metrics
from vfl.measure.report.charts import Chart, DotRow, HeatChart, chart, dot_rows, heat_chart
from vfl.measure.report.guide import guide_of, ordered
from vfl.measure.report.panels import Drawn, drawn, lines_of
from vfl.metrics.spec import Metric
from vfl.report.charts import Tick, inks, shade
from vfl.report.page import environment, flat

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
    dots: list[DotRow]
    dot_ticks: list[Tick]
    drawn: Drawn
    options: list[tuple[str, str]]


def render(metrics: Metrics, pictures: Sequence[dict[str, Any]] = (), notes: Sequence[str] = ()) -> str:
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
            settings=list(flat(metrics.settings)),
            scale=[shade(n / 10) for n in range(11)],
            pictures=pictures,
            pictures_json=Markup(safe_json(list(pictures))),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def safe_json(content: Any) -> str:
    """JSON that can stand in a script element whatever its texts hold."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return "".join(UNSAFE.get(letter, letter) for letter in text)


def _section(metrics: Metrics, name: str) -> Section:
    result, guide = metrics.metrics[name], guide_of(name)
    found = drawn(result, guide, metrics.data.functions)
    ink = inks(lines_of(found.panels))
    dots, dot_ticks = dot_rows(found.dots) if found.dots else ([], [])
    return Section(
        name=name,
        guide=guide,
        n=result["n"],
        seconds=metrics.seconds.get(name, 0.0),
        charts=[one for panel in found.panels if (one := chart(panel, ink))],
        heats=[one for one in map(heat_chart, found.heats) if one],
        dots=dots,
        dot_ticks=dot_ticks,
        drawn=found,
        options=list(flat(result["options"])),
    )
