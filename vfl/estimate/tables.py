"""Estimates as tables for a terminal, every number called what it is."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfl.estimate.cards import CARDS
from vfl.estimate.config import EstimateConfig
from vfl.estimate.cost import UTILISATION
from vfl.estimate.run import Estimate
from vfl.io.durations import duration
from vfl.io.sizes import size_text
from vfl.models.shape import Shape


def print_estimates(config: EstimateConfig, shape: Shape, estimates: Sequence[Estimate], console: Console) -> None:
    """A table of the works; then, for each, where its memory goes and what was assumed."""
    for line in head_lines(config, shape):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    headings = ("estimate", "memory a card", "fits", "operations", "time", "disk")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("estimate", "fits") else "right")
    for each in estimates:
        table.add_row(*map(Text, cells(each)))
    console.print(table)
    for each in estimates:
        for line in lines_of(each):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def head_lines(config: EstimateConfig, shape: Shape) -> list[str]:
    """The model, the card, and what holds for all numbers."""
    card = CARDS[config.gpu]
    low, high = UTILISATION
    weights = config.quantize or config.dtype
    return [
        f"{config.model} ({shape.family}): {shape.num_layers} decoder layers, {shape.parameters:,} parameters, "
        f"{weights}",
        f"{config.gpus} x {card.title}: {card.memory:g} GiB, {card.tflops:g} TFLOP/s of bfloat16, "
        f"{card.bandwidth:g} TB/s ({card.source}). Estimates, not measurements: times are for {low:.0%} "
        f"to {high:.0%} of that rate.",
    ]


def cells(each: Estimate) -> tuple[str, ...]:
    """One row of the table."""
    low, high = each.cost.operations()
    return (
        each.work,
        size_text(each.cost.bytes),
        "yes" if each.fits else "no",
        f"{spread(f'{low:.2g}', f'{high:.2g}')} a {each.cost.unit}",
        spread(*map(duration, each.seconds)),
        size_text(sum(each.cost.disk.values())),
    )


def spread(low: str, high: str) -> str:
    """Two figures, or one where they read the same."""
    return low if low == high else f"{low} - {high}"


def lines_of(each: Estimate) -> list[str]:
    """Where memory goes, what was assumed, and what to change."""
    parts = ", ".join(f"{what} {size_text(count)}" for what, count in each.cost.memory.items())
    disk = ", ".join(f"{what} {size_text(count)}" for what, count in each.cost.disk.items())
    lines = [f"{each.work}: {parts}. Disk: {disk}. Assumed: {'; '.join(each.cost.assumed)}."]
    if each.remedies:
        lines.append(f"{each.work} does not fit. What would: {'; or '.join(each.remedies)}.")
    return lines
