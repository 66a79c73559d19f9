"""A published table or figure, measured: what a paper's file names.

vfl measure --paper recipes/papers/NAME.yaml

The data is fetched from the hub and rewritten as questions (or as a probe suite, where objects have boxes), each set is
measured like any other data, and the printed numbers are shown beside the measured ones.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vfl.io.config import validated
from vfl.loading.config import ModelConfig, load_from
from vfl.measure.config import MeasureConfig, check_metrics
from vfl.measure.hub import write_objects, write_questions
from vfl.measure.metrics_file import Metrics
from vfl.measure.paper_file import ObjectSet, Paper, QuestionSet, read_paper
from vfl.measure.published import PublishedFigure, compare, save
from vfl.measure.run import folder_of, run
from vfl.models.vlm import VLM

DATA = "data"


def config_of(paper: Paper, name: str) -> MeasureConfig:
    """The settings of one of the paper's sets, its data being in place.

    Raises:
        InputError: for metrics or options that there are not.
    """
    check_metrics(paper.metrics, paper.options)
    chosen = paper.sets[name]
    values: dict[str, Any] = {field: getattr(paper, field) for field in ModelConfig.model_fields}
    values |= {"out": paper.out / name, "metrics": paper.metrics, "options": paper.options}
    values |= {"lens_images": paper.lens_images, "pairs": paper.pairs}
    folder = paper.out / DATA / name
    if isinstance(chosen, QuestionSet):
        values |= {"data": str(folder / f"{name}.jsonl"), "images": folder, "format": "messages"}
        values |= {"match": chosen.match, "choices": chosen.choices, "on_bad_row": "skip"}
    elif isinstance(chosen, ObjectSet):
        values["data"] = str(folder)
    else:
        values |= {"data": chosen.probes, "functions": chosen.functions, "seed": chosen.seed}
        values["pairs"] = chosen.pairs if paper.pairs is None else min(paper.pairs, chosen.pairs)
    return validated(MeasureConfig, values, source=paper.title)


def run_paper(
    file: Path, settings: Mapping[str, Any] | None = None, *, overwrite: bool = False, resume: bool = False
) -> tuple[Paper, list[PublishedFigure]]:
    """Fetch a paper's data, measure it, and put its numbers beside ours (also as published.json in `out`).

    Data that lies in `out` already is not fetched again, unless the file says something else of it now, or it was less.

    Args:
        file: the paper's file.
        settings: a user's (see `MAY_GIVE`).
        overwrite, resume: as of `vfl.measure.run.run`.
    """
    paper = read_paper(file, settings)
    for name in paper.sets:
        config_of(paper, name)  # refuse before anything is fetched
    for name, chosen in paper.sets.items():
        folder = paper.out / DATA / name
        if isinstance(chosen, QuestionSet):
            write_questions(chosen, folder, name, paper.pairs)
        elif isinstance(chosen, ObjectSet):
            write_objects(chosen, folder, paper.pairs)
    vlm = load_from(paper)
    measured = {name: _measured(paper, name, vlm, overwrite=overwrite, resume=resume).metrics for name in paper.sets}
    figures = compare(paper.published, measured)
    save(paper.out, paper.title, paper.source, vlm.model_id, figures)
    return paper, figures


def _measured(paper: Paper, name: str, vlm: VLM, *, overwrite: bool, resume: bool) -> Metrics:
    """One set; a paper that is resumed has sets that were not begun."""
    config = config_of(paper, name)
    others = [other for other in paper.sets if other != name]
    return run(config, vlm=vlm, overwrite=overwrite, resume=resume and folder_of(config).taken, beside=others)
