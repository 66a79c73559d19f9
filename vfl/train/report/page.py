"""report.html of a training run, from the files in its folder: one page, offline, whose charts need no script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment

from vfl.errors import InputError
from vfl.evaluate.result import EVALUATION, Evaluation
from vfl.io.atomic import replacing
from vfl.io.run_folder import SETTINGS
from vfl.io.sizes import size_text
from vfl.report.charts import GREY, Ink, Tick, inks, y_of
from vfl.report.heat import HeatChart, heat_chart
from vfl.report.lines import Chart, Panel, Series, chart
from vfl.report.page import environment, flat
from vfl.report.scales import whole_ticks
from vfl.report.sheet import Cell, Sheet, with_unit
from vfl.report.words import SHARE, signed
from vfl.train.preflight import tables as words
from vfl.train.preflight.audit import AuditRow, visible
from vfl.train.preflight.facts import Preflight
from vfl.train.preflight.lengths import LengthHistogram
from vfl.train.report.before_after import Change, Rate, changes_of, gained, points
from vfl.train.report.log import Curve, TrainingLog, read_log

TEMPLATES = Path(__file__).resolve().parent
STEP = "step"
ROWS = 16  # steps of a heat map


@dataclass(frozen=True)
class ChangeRow:
    """A group in the table and in the chart beside it: x positions in per cent."""

    change: Change
    ink: Ink
    cells: list[tuple[str, str]]  # before, after and the change, each with its interval or ""
    before_at: tuple[float, float, float] | None  # value, low, high
    after_at: tuple[float, float, float] | None


@dataclass(frozen=True)
class LayerCurves:
    """A metric's curve over layers: as it was first and last, and over steps."""

    title: str
    ends: Chart
    heat: HeatChart | None
    axis: str


def write_training_report(folder: Path, changes: Sequence[Change] | None = None) -> Path:
    """Write report.html into a run's folder from what is in it, and return its path.

    Read are preflight.json, metrics.jsonl, evaluation.json and settings.yaml; what is missing is left out of the page.

    Args:
        changes: accuracy before and after; by default what evaluation.json has, or metrics.jsonl without it.

    Raises:
        InputError: for a file that is there and is not what its name says.
    """
    path = folder / "report.html"
    flight = Preflight.load(folder / "preflight.json") if (folder / "preflight.json").is_file() else None
    log = read_log(folder / "metrics.jsonl")
    if changes is None:
        changes = read_changes(folder / EVALUATION, log)
    text = render(flight, log, read_recipe(folder / SETTINGS), changes)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def render(
    flight: Preflight | None, log: TrainingLog, recipe: Mapping[str, Any], changes: Sequence[Change] = ()
) -> str:
    """The page as text; everything in it is escaped by the template."""
    groups = list(
        dict.fromkeys([*(change.group for change in changes), *(n for _, groups in log.evaluations for n in groups)])
    )
    ink = inks(groups)
    rewards = _rewards(log)
    layers = list(flight.arm.layers) if flight else []
    return (
        _environment()
        .get_template("training.html.jinja")
        .render(
            flight=flight,
            title=_title(flight),
            facts=_facts(flight) if flight else [],
            changes=[_change_row(change, ink[change.group]) for change in changes],
            paired=all(change.difference for change in changes),
            changes_sheet=_changes_sheet(changes),
            lengths_sheet=_lengths_sheet(flight.lengths) if flight and flight.lengths else None,
            most_rows=max((part.rows for part in flight.lengths.bins), default=1) if flight and flight.lengths else 1,
            rate_ticks=[Tick(100 * rate, f"{100 * rate:.0f}") for rate in (0, 0.25, 0.5, 0.75, 1)],
            loss=chart(Panel("Loss", STEP, "", [_logged(log, "loss")])),
            reward=chart(Panel("Reward", STEP, "", rewards), inks([line.name for line in rewards])),
            logged=_other_logged(log),
            once=_logged_once(log),
            accuracy=chart(Panel("Accuracy", STEP, SHARE, [_accuracy(log, name) for name in groups]), ink),
            accuracies=_present(
                [chart(Panel(name, STEP, SHARE, [_accuracy(log, name, intervals=True)]), ink) for name in groups]
            ),
            forgetting=_forgetting(log),
            scalars=_scalars(log),
            curves=[_layer_curves(name, steps, layers) for name, steps in log.curves.items()],
            settings=flat(recipe),
        )
    )


def training_panels(log: TrainingLog) -> list[Panel]:
    """The loss and the accuracy of each group, by step; only what was logged."""
    groups = dict.fromkeys(name for _, groups in log.evaluations for name in groups)
    panels = [Panel("loss", STEP, "nats per token", [_logged(log, "loss")])]
    panels += [Panel(name, STEP, SHARE, [_accuracy(log, name, intervals=True)]) for name in groups]
    return [panel for panel in panels if panel.series[0].at]


def read_changes(path: Path, log: TrainingLog) -> list[Change]:
    """Before and after from evaluation.json, or from the log of a run that did not end."""
    if not path.is_file():
        return log.changes()
    try:
        return changes_of(Evaluation.model_validate_json(path.read_bytes()))
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path} is no evaluation of this version ({first}). Evaluate again, or remove it.") from None


def read_recipe(path: Path) -> dict[str, Any]:
    """The resolved recipe; empty if there is none."""
    if not path.is_file():
        return {}
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(recipe, dict):
        raise InputError(f"{path} holds a {type(recipe).__name__}; expected keys and values.")
    return recipe


@cache
def _environment() -> Environment:
    """The page's templates with the filters that they use."""
    env = environment(TEMPLATES)
    env.filters.update(size=size_text, visible=visible, arm=words.arm_sentence, answers=_answers)
    return env


def _title(flight: Preflight | None) -> str:
    return "Training run" if flight is None else f"LoRA training of {flight.model.id}"


def _facts(flight: Preflight) -> list[tuple[str, str]]:
    """The preflight as a person reads it, label by label."""
    launch = flight.launch
    rows = [
        ("method", flight.method),
        ("model", words.model_text(flight)),
        ("arm", words.arm_text(flight)),
        *([("protected", flight.arm.protected)] if flight.arm.protected else []),
        ("backward pass", words.backward_text(flight)),
        ("data", words.data_text(flight.data)),
        *([("system prompt", words.system_text(flight.data))] if flight.data.system_prompt is not None else []),
        *(_sampling(flight) if flight.grpo else []),
        ("processes", words.processes_text(launch)),
        ("device", words.device_text(launch)),
        ("batch", words.batch_text(launch)),
        ("steps", words.steps_text(launch)),
    ]
    rows += [("packing", flight.packing)] if flight.packing else []
    rows += [("memory", words.memory_text(flight.memory))] if flight.memory else []
    rows += [("time", words.time_text(flight.time))] if flight.time else []
    rows += [("model revision", flight.model.revision)] if flight.model.revision else []
    rows += [("weights sha256", flight.model.weights_sha256)] if flight.model.weights_sha256 else []
    rows += [("map sha256", flight.arm.map_sha256)] if flight.arm.map_sha256 else []
    return rows + [(f"sha256 of {name}", digest) for name, digest in flight.data.files.items()]


def _sampling(flight: Preflight) -> list[tuple[str, str]]:
    assert flight.grpo is not None
    return [
        ("sampled answers", words.sampling_text(flight.grpo)),
        ("reward", words.reward_text(flight.grpo, flight.data.matches)),
    ]


def _change_row(change: Change, ink: Ink) -> ChangeRow:
    def place(rate: Rate | None) -> tuple[float, float, float] | None:
        if rate is None:
            return None
        value, low, high = (round(100 - y_of(share), 3) for share in (rate.value, rate.low, rate.high))
        return value, low, high

    texts = (points(change.before), points(change.after), gained(change))
    cells = [(value, rest.rstrip(")")) for value, _, rest in (text.partition(" (") for text in texts)]
    return ChangeRow(change, ink, cells, place(change.before), place(change.after))


def _changes_sheet(changes: Sequence[Change]) -> Sheet:
    """Accuracy before and after, with the ends of both intervals."""
    headings = [with_unit(f"{when}{end}", SHARE) for when in ("before", "after") for end in ("", " low", " high")]
    rows: list[list[Cell]] = []
    for change in changes:
        rates = ((rate.value, rate.low, rate.high) if rate else (None,) * 3 for rate in (change.before, change.after))
        rows.append([change.group, change.n, *(value for three in rates for value in three)])
    return Sheet("accuracy before and after", ["group", "items", *headings], rows)


def _lengths_sheet(lengths: LengthHistogram) -> Sheet:
    """Rows by their number of tokens."""
    headings = ["tokens from", "tokens to", "rows", "image tokens (share)"]
    return Sheet("tokens a row", headings, [[b.first, b.last, b.rows, b.image_share] for b in lengths.bins])


def _answers(row: AuditRow) -> str:
    return " … ".join(row.answers)


def _logged(log: TrainingLog, name: str) -> Series:
    rows = [(step, numbers[name]) for step, numbers in log.train if name in numbers]
    return Series(name, [step for step, _ in rows], [value for _, value in rows])


def _rewards(log: TrainingLog) -> list[Series]:
    """The mean reward of sampled answers, and its parts where there are several; nothing where none were sampled."""
    parts = [name for name in _names(log) if name.startswith("rewards/") and name.endswith("/mean")]
    named = {"reward": "reward"} | {name: name.split("/")[1] for name in parts if len(parts) > 1}
    lines = [(_logged(log, name), label) for name, label in named.items()]
    return [Series(label, line.at, line.value) for line, label in lines if line.value]


def _other_logged(log: TrainingLog) -> list[Chart]:
    """What the trainer logged more than once, a chart each; the loss has its own."""
    names = [name for name in _names(log) if _times(log, name) > 1]
    return _present([chart(Panel(name, STEP, "", [_logged(log, name)])) for name in names])


def _present(charts: Sequence[Chart | None]) -> list[Chart]:
    """Those with something to show."""
    return [ready for ready in charts if ready]


def _logged_once(log: TrainingLog) -> list[tuple[str, str]]:
    """What it logged once, at the end: run time, rows a second."""
    rows = [(name, _logged(log, name).value) for name in _names(log) if _times(log, name) == 1]
    return [(name, f"{values[0]:,.6g}") for name, values in rows]


def _names(log: TrainingLog) -> list[str]:
    return [name for name in dict.fromkeys(name for _, numbers in log.train for name in numbers) if name != "loss"]


def _times(log: TrainingLog, name: str) -> int:
    return sum(name in numbers for _, numbers in log.train)


def _accuracy(log: TrainingLog, name: str, intervals: bool = False) -> Series:
    rows = [(step, groups[name].rate) for step, groups in log.evaluations if name in groups]
    low = [rate.low for _, rate in rows] if intervals else None
    high = [rate.high for _, rate in rows] if intervals else None
    return Series(name, [step for step, _ in rows], [rate.value for _, rate in rows], low, high)


def _forgetting(log: TrainingLog) -> list[tuple[str, str, str]]:
    """Group, largest loss of accuracy against step 0 and its step, and the last one, in percentage points."""
    rows: dict[str, list[tuple[float, int]]] = {}
    for step, groups in log.evaluations:
        for name, group in groups.items():
            if group.forgetting is not None and step > 0:
                rows.setdefault(name, []).append((group.forgetting, step))
    most = {name: max(losses, key=lambda loss: loss[0]) for name, losses in rows.items()}
    return [
        (name, f"{signed(100 * most[name][0], 1)} (step {most[name][1]:,})", signed(100 * losses[-1][0], 1))
        for name, losses in rows.items()
    ]


def _scalars(log: TrainingLog) -> list[Chart]:
    lines = [Series(name, [s for s, _ in rows], [v for _, v in rows]) for name, rows in log.scalars.items()]
    return _present([chart(Panel(line.name, STEP, "", [line])) for line in lines])


def _layer_curves(title: str, steps: list[tuple[int, Curve]], layers: list[int]) -> LayerCurves | None:
    (first_step, first), (last_step, last) = steps[0], steps[-1]
    series = [Series(f"step {first_step:,}", first.at, first.value)]
    ink = {series[0].name: Ink(GREY, "5 3")}
    if last_step != first_step:
        series.append(Series(f"step {last_step:,}", last.at, last.value))
    ends = chart(Panel(title, first.axis, "", series), ink)
    if ends is None:
        return None
    rows = [(step, curve.value) for step, curve in steps if curve.at == first.at]
    marked = layers if first.axis == "layer" else []
    return LayerCurves(title, ends, steps_map(title, first.axis, first.at, rows, marked), first.axis)


def steps_map(
    title: str,
    axis: str,
    at: Sequence[float],
    rows: Sequence[tuple[int, Sequence[float | None]]],
    marked: Sequence[int],
) -> HeatChart | None:
    """Values over an axis, one row a step; None for a single step. Of many steps an even choice is shown."""
    if len(rows) < 2:
        return None
    if len(rows) > ROWS:
        rows = [rows[round(n * (len(rows) - 1) / (ROWS - 1))] for n in range(ROWS)]
    return heat_chart(
        title,
        [values for _, values in rows],
        (STEP, [step for step, _ in rows]),
        (axis, at),
        columns={place: f"{at[place]:g}" for place in whole_ticks(len(at))},
        names={row: f"{step:,}" for row, (step, _) in enumerate(rows)},
        marked=[place for place, layer in enumerate(at) if layer in set(marked)],
    )
