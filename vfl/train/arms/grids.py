"""The tables of a study, as texts: for the terminal, for arms.md and for the page alike. All fit 80 columns."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfl.report.words import NONE, fixed, signed
from vfl.train.arms.pareto import front
from vfl.train.arms.summary import ArmResult, StudyResult
from vfl.train.report.before_after import Rate

WIDTH = 80


@dataclass(frozen=True)
class Grid:
    """A table. `words` are columns that hold words and may be broken; the others are numbers and stay whole."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: tuple[int, ...] = (0,)


def grids(result: StudyResult) -> list[Grid]:
    """What each arm reaches, what it costs, which learning rates were tried, and every group by itself."""
    tables = [_reached(result), _costs(result)]
    if any(len(arm.tried) > 1 for arm in result.arms):
        tables.append(_rates(result))
    return [*tables, _groups(result)]


def notes(result: StudyResult) -> list[str]:
    """What a reader must know of the numbers, a sentence or two each."""
    seeds = sorted({len(arm.seeds) for arm in result.arms})
    lines = [
        f"Every run took {result.steps:,} steps of {result.batch} {result.runs[0].unit}. Shares of right answers in "
        "per cent, changes in points, with 95 % intervals over seeds and items: a bootstrap of both, never narrower "
        "than Wilson's interval at the effective number of items."
    ]
    if seeds[0] == 1:
        lines.append("With 1 seed an interval is over items alone: how much seeds differ is not known.")
    if result.new:
        lines.append(f"New: {_mean_of(result, result.new)}.")
    if result.old:
        lines.append(f"Forgotten: accuracy before minus after, {_mean_of(result, result.old)}; above zero is a loss.")
    if result.validation:
        lines.append(
            f"Each arm stands at its best learning rate, chosen by {result.validation} validation items of the new "
            "skill. All results are over the other items (test), which chose nothing."
        )
        lines += _at_ends(result)
    if any(group.against_full for arm in result.arms for group in arm.groups.values()):
        lines.append("Against full: points more or less than all layers with the same modules and replay, paired.")
    if _judged(result):
        lines.append("Front: no other arm is at least as good in new and forgotten and better in one of them.")
    if result.unfinished:
        left = ", ".join(f"{name} ({count})" for name, count in result.unfinished.items())
        lines.append(f"NOT FINISHED, runs left: {left}. Start the same command again to go on.")
    return lines


def markdown(result: StudyResult) -> str:
    """arms.md: tables and notes, padded so that they can be read as they stand."""
    parts = []
    for grid in grids(result):
        rows = [grid.heads, *grid.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(grid.heads))]
        lines = [_line(row, widths, grid.words) for row in rows]
        rule = ["-" * width if column in grid.words else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
        parts += [f"**{grid.title}**", "\n".join([lines[0], f"| {' | '.join(rule)} |", *lines[1:]])]
    parts += [textwrap.fill(note, WIDTH) for note in notes(result)]
    return "\n\n".join(parts) + "\n"


def show(result: StudyResult, console: Console) -> None:
    """The tables and notes on a terminal; names of arms are broken where it is narrow."""
    for grid in grids(result):
        table = Table(title=grid.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column, head in enumerate(grid.heads):
            word = column in grid.words
            table.add_column(
                head, justify="left" if word else "right", no_wrap=not word, overflow="fold" if word else "ellipsis"
            )
        for row in grid.rows:
            table.add_row(*map(Text, row))
        console.print(table)
    for note in notes(result):
        console.print(note, markup=False, highlight=False)


def _reached(result: StudyResult) -> Grid:
    several = any(len(arm.tried) > 1 for arm in result.arms)
    heads = ["arm", "seeds"]
    heads += ["rate"] if several else []
    heads += [f"new (n {_items(result, result.new)})"] if result.new else []
    heads += [f"forgotten (n {_items(result, result.old)})"] if _any_forgotten(result) else []
    unbeaten = _front(result)
    heads += ["front"] if _judged(result) else []
    rows = []
    for arm in result.arms:
        row = [arm.arm, str(len(arm.seeds))]
        row += [_rate(arm.rate)] if several else []
        row += [share(arm.new)] if result.new else []
        row += [change(arm.forgotten, plus=False)] if _any_forgotten(result) else []
        row += ["yes" if arm.arm in unbeaten else ""] if _judged(result) else []
        rows.append(tuple(row))
    return Grid("What each arm reaches", tuple(heads), rows)


def _costs(result: StudyResult) -> Grid:
    full = next((arm.step_seconds for arm in result.arms if arm.arm == "full"), None)
    rows = []
    for arm in result.arms:
        layers = arm.layers[0] if len(arm.layers) == 1 else "differ by seed"
        seconds = NONE if arm.step_seconds is None else f"{arm.step_seconds:.3g}"
        relative = [fixed(arm.step_seconds / full if arm.step_seconds else None)] if full else []
        rows.append((arm.arm, layers, f"{arm.parameters:,}", seconds, *relative))
    heads = ["arm", "layers", "parameters", "s a step", *(["of full"] if full else [])]
    return Grid("What it costs", tuple(heads), rows, words=(0, 1))


def _rates(result: StudyResult) -> Grid:
    rows = [
        (arm.arm, _rate(tried.rate), str(tried.seeds), share(tried.validation), "yes" if tried.chosen else "")
        for arm in result.arms
        for tried in arm.tried
    ]
    heads = ("arm", "rate", "seeds", f"validation (n {result.validation})", "chosen")
    return Grid("Learning rates, by the validation part alone", heads, rows)


def _groups(result: StudyResult) -> Grid:
    compared = any(group.against_full for arm in result.arms for group in arm.groups.values())
    heads = ["group", "arm", "right", *(["against full"] if compared else [])]
    rows = []
    for name, items in result.tested.items():
        before = result.arms[0].groups[name].before
        first = f"{name} (n {len(items)})"
        if before is not None:
            rows.append((first, "before", fixed(100 * before, 1), *([""] if compared else [])))
            first = ""
        for arm in result.arms:
            group = arm.groups[name]
            extra = ["" if group.against_full is None else change(group.against_full)] if compared else []
            rows.append((first, arm.arm, share(group.after), *extra))
            first = ""
    return Grid("Every group", tuple(heads), rows, words=(0, 1))


def share(rate: Rate | None) -> str:
    """(.29, .227, .357) -> "29.0 (23–36)"."""
    return NONE if rate is None else f"{100 * rate.value:.1f} ({100 * rate.low:.0f}–{100 * rate.high:.0f})"


def change(rate: Rate | None, *, plus: bool = True) -> str:
    """(-.12, -.2, .03) -> "-12.0 (-20 to +3)"."""
    if rate is None:
        return NONE
    value, low, high = (
        signed(100 * number, digits) if plus else fixed(100 * number, digits)
        for number, digits in ((rate.value, 1), (rate.low, 0), (rate.high, 0))
    )
    return f"{value} ({low} to {high})"


def _at_ends(result: StudyResult) -> list[str]:
    """Arms whose best rate may lie beyond those that were tried."""
    ends = []
    for arm in result.arms:
        rates = [tried.rate for tried in arm.tried]
        equal = len({tried.validation.value for tried in arm.tried if tried.validation}) == 1
        if len(rates) > 1 and arm.rate in (rates[0], rates[-1]) and not equal:
            ends.append(f"{arm.arm} ({_rate(arm.rate)})")
    if not ends:
        return []
    whose = "every arm" if len(ends) == len(result.arms) else ", ".join(ends)
    return [f"The best rate lies at an end of those that were tried, so try further ones: {whose}."]


def _rate(rate: float | None) -> str:
    return "TRL's" if rate is None else f"{rate:g}"


def _line(row: Sequence[str], widths: Sequence[int], words: Sequence[int]) -> str:
    cells = [
        text.ljust(width) if column in words else text.rjust(width)
        for column, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
    return f"| {' | '.join(cells)} |"


def _items(result: StudyResult, groups: Sequence[str]) -> int:
    return sum(len(result.tested[group]) for group in groups)


def _mean_of(result: StudyResult, groups: Sequence[str]) -> str:
    named = ", ".join(f"{group} ({len(result.tested[group])} items)" for group in groups)
    return named if len(groups) == 1 else f"mean of {named}"


def _any_forgotten(result: StudyResult) -> bool:
    return any(arm.forgotten is not None for arm in result.arms)


def _judged(result: StudyResult) -> list[ArmResult]:
    return [arm for arm in result.arms if arm.new is not None and arm.forgotten is not None]


def _front(result: StudyResult) -> set[str]:
    judged = _judged(result)
    points = [(arm.new.value, arm.forgotten.value) for arm in judged if arm.new and arm.forgotten]
    return {judged[place].arm for place in front(points)}
