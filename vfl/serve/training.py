"""Two or more training runs side by side: settings that differ, curves, accuracies before and after."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vfl.errors import InputError
from vfl.evaluate.result import EVALUATION
from vfl.io.run_folder import SETTINGS
from vfl.report.charts import inks
from vfl.report.lines import Chart, Panel, chart
from vfl.report.page import flat
from vfl.report.words import NONE
from vfl.serve.folder import file_of
from vfl.train.report.before_after import Change, gained, points
from vfl.train.report.log import TrainingLog, read_log
from vfl.train.report.page import read_changes, read_recipe, training_panels


@dataclass(frozen=True)
class Compared:
    """Runs in the order given.

    Attributes:
        runs: their places.
        settings: rows of a setting's name and its value in each run, of those that are not the same in all.
        charts: the loss and the accuracy of each group, a line a run.
        accuracies: rows of a group's name and, for each run, (before, after, change); dashes where it lacks them.
    """

    runs: tuple[str, ...]
    settings: list[tuple[str, list[str]]]
    charts: list[Chart]
    accuracies: list[tuple[str, list[tuple[str, str, str]]]]


def compare_training(root: Path, places: Sequence[str]) -> Compared:
    """Read the runs and set them side by side.

    Raises:
        InputError: for fewer than two different runs, a place that is no training run, or a file that can't be read.
    """
    chosen = tuple(dict.fromkeys(places))
    if len(chosen) < 2:
        raise InputError(f"{len(chosen)} run was chosen; comparing takes at least two.")
    recipes, logs, changes = [], [], []
    for place in chosen:
        settings, log = file_of(root, place, SETTINGS), file_of(root, place, "metrics.jsonl")
        evaluation = file_of(root, place, EVALUATION)
        if log is None:
            raise InputError(f"{place} is no training run with a log: it has no metrics.jsonl.")
        recipes.append(dict(flat(read_recipe(settings))) if settings is not None else {})
        logs.append(read_log(log))
        changes.append(logs[-1].changes() if evaluation is None else read_changes(evaluation, logs[-1]))
    return Compared(chosen, _differing(recipes), _charts(chosen, logs), _accuracies(changes))


def _differing(recipes: Sequence[dict[str, str]]) -> list[tuple[str, list[str]]]:
    names = dict.fromkeys(name for recipe in recipes for name in recipe)
    rows = [(name, [recipe.get(name, NONE) for recipe in recipes]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _charts(places: Sequence[str], logs: Sequence[TrainingLog]) -> list[Chart]:
    together: dict[str, Panel] = {}
    for place, log in zip(places, logs, strict=True):
        for panel in training_panels(log):
            line = replace(panel.series[0], name=place)
            there = together.setdefault(panel.title, replace(panel, series=[]))
            there.series.append(line)
    ink = inks(places)
    return [drawn for panel in together.values() if (drawn := chart(panel, ink)) is not None]


def _accuracies(changes: Sequence[Sequence[Change]]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    groups = dict.fromkeys(change.group for run in changes for change in run)
    by_run = [{change.group: change for change in run} for run in changes]
    return [(group, [_texts(run.get(group)) for run in by_run]) for group in groups]


def _texts(change: Change | None) -> tuple[str, str, str]:
    if change is None:
        return NONE, NONE, NONE
    return points(change.before), points(change.after), gained(change)
