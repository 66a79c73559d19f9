"""The catalogue of metrics: what each is, its equation, how to read it, its source, its picture."""

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

from pages_from_code.sources import ROOT, cell

from vfl.metrics.measure import known_metrics
from vfl.metrics.spec import Metric

ASKS = {"prompts": "questions with an image"}  # what `needs` does not say by itself


def page() -> str:
    """The whole page."""
    metrics = list(known_metrics().values())
    parts = [
        "# Metrics",
        "Each is a function of a model and of pairs or prompts, and a name for `vfl measure --metrics`, and for "
        "`evaluation.metrics` of a training recipe. It leaves the model bit-equal. What comes back is plain data: "
        "numbers and curves with 95 % intervals and their number of samples.",
        "    vfl measure MODEL --metrics swap,drop --out runs/measure",
        "Options of a metric stand under its name in a file for `--config`:",
        "```yaml\nmetrics: [drop]\noptions: {drop: {ks: [0, 4, 8]}}\n```",
        "| name | what | measured on | source |\n|---|---|---|---|\n"
        + "\n".join(
            f"| [`{m.name}`](#{m.name}) | {m.title} | {ASKS.get(m.needs, m.needs)} | {cell(m.source)} |"
            for m in metrics
        ),
    ]
    parts += [section(metric) for metric in metrics]
    return "\n\n".join(parts) + "\n"


def section(metric: Metric) -> str:
    """One metric."""
    module = sys.modules[metric.function.__module__]
    doc = inspect.getdoc(metric.function) or ""
    parts = [f"## {metric.title} {{ #{metric.name} }}", f"`{metric.name}` in `{module.__name__}`. {first(doc)}"]
    parts.append(f"> {metric.equation}")
    parts.append(inspect.getdoc(module) or "")
    parts.append(f"**How to read it.** {metric.read}")
    parts.append(f"**What to do with it.** {metric.use}")
    parts.append(f"Source: {metric.source}." + (f" Unit: {metric.unit}." if metric.unit else ""))
    if metric.only_images:
        parts.append(f"Not for models that hear sounds: {metric.only_images}.")
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
    texts: dict[str, str] = {}
    if listed:
        for entry in re.split(r"\n(?= {4}\w)", listed[1]):
            name, _, text = entry.strip().partition(":")
            texts[name] = text
    options = list(inspect.signature(function).parameters.values())[2:]  # after the model and what is measured on
    return [f"| `{o.name}` | `{cell(str(o.default))}` | {cell(texts.get(o.name, ''))} |" for o in options]
