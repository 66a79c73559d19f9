"""The catalogue of metrics: what each is, its equation, how to read it, its source, its picture."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pages_from_code.sources import ROOT, cell

from vfl.measure.report.guide import guide_of, ordered
from vfl.metrics import measure


@dataclass(frozen=True)
class Metric:
    """One row of the catalogue; the only part that knows how metrics are declared."""

    name: str
    title: str
    function: Callable[..., Any]
    asks: str
    how_to_read: str
    source: str


def catalogue() -> Iterator[Metric]:
    """Every metric that `vfl measure` knows, in the report's order."""
    functions = measure.OF_PROMPTS | measure.OF_PAIRS
    for name in ordered(list(functions)):
        guide = guide_of(name)
        asks = "questions with an image" if name in measure.OF_PROMPTS else "minimal pairs"
        yield Metric(name, guide.title, functions[name], asks, guide.read, guide.source)


def page() -> str:
    """The whole page."""
    metrics = list(catalogue())
    parts = [
        "# Metrics",
        "Each is a function of a model and of pairs or prompts, and a name for `vfl measure --metrics`, and for "
        "`evaluation.metrics` of a training recipe. It leaves the model bit-equal. What comes back is plain data: "
        "numbers and curves with 95 % intervals and their number of samples.",
        "    vfl measure MODEL --metrics swap,drop --out runs/measure",
        "Options of a metric stand under its name in a file for `--config`:",
        "```yaml\nmetrics: [drop]\noptions: {drop: {ks: [0, 4, 8]}}\n```",
        "| name | what | measured on | source |\n|---|---|---|---|\n"
        + "\n".join(f"| [`{m.name}`](#{m.name}) | {m.title} | {m.asks} | {cell(m.source)} |" for m in metrics),
    ]
    parts += [section(metric) for metric in metrics]
    return "\n\n".join(parts) + "\n"


def section(metric: Metric) -> str:
    """One metric."""
    module = sys.modules[metric.function.__module__]
    doc = inspect.getdoc(metric.function) or ""
    parts = [f"## {metric.title} {{ #{metric.name} }}", f"`{metric.name}` in `{module.__name__}`. {first(doc)}"]
    equations = inspect.getdoc(module) or ""
    parts.append(equations)
    parts.append(f"**How to read it.** {metric.how_to_read}")
    parts.append(f"Source: {metric.source}.")
    if options := arguments(doc, metric.function):
        parts.append("| option | default | meaning |\n|---|---|---|\n" + "\n".join(options))
    picture = ROOT / "docs" / "gallery" / f"{metric.name}.png"
    if picture.exists():
        parts.append(f"![{metric.title} on the embedded model](../gallery/{picture.name})")
    return "\n\n".join(parts)


def first(doc: str) -> str:
    """The first paragraph."""
    return " ".join(doc.split("\n\n")[0].split())


def arguments(doc: str, function: Callable[..., Any]) -> list[str]:
    """The options of a metric, from its signature and the `Args:` of its docstring."""
    listed = re.search(r"^Args:\n((?: {4}.*\n?|\n)+)", doc, re.MULTILINE)
    told: dict[str, str] = {}
    if listed:
        for entry in re.split(r"\n(?= {4}\w)", listed[1]):
            name, _, text = entry.strip().partition(":")
            told[name] = text
    options = list(inspect.signature(function).parameters.values())[2:]  # after the model and what is measured on
    return [f"| `{o.name}` | `{cell(str(o.default))}` | {cell(told.get(o.name, ''))} |" for o in options]
