"""`vfl select score|filter|report|run`: cut a data set to a budget by what each row needs of the image.

vfl select score llava.json --images train2017 --model Qwen/Qwen2.5-VL-3B-Instruct --map runs/map --out scores
vfl select filter scores --budget 20% --out subset
vfl select filter scores --budget "2M answer tokens" --policy target --target ocr=2,counting=1 --out subset
vfl select report scores --subset subset --out report.html
vfl select run llava.json --images train2017 --model Qwen/Qwen2.5-VL-3B-Instruct --map map --budget 20% --out subset
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from vfl.commands.help import Command, examples
from vfl.commands.options import (
    OUT,
    RESULTS_GROUP,
    DataArgument,
    DataOption,
    Images,
    ModelOption,
    Out,
    Overwrite,
    Shared,
    config_options,
    given_of,
    model_options,
    names_of,
    read_settings,
    split_shared,
    takes,
)
from vfl.commands.select_options import (
    Memory,
    Scores,
    ScoresArgument,
    choosing,
    choosing_options,
    paths,
    reading_options,
    scoring,
    scoring_options,
)
from vfl.commands.select_tables import say, show_subset

app = typer.Typer(no_args_is_help=True, help="Choose the rows to train on, to a budget.")


@app.command("score", cls=Command, epilog=examples(__doc__, "select score"))
@takes(reading_options, scoring_options, model_options, config_options, required=["data", "out"])
def score_command(
    data: DataArgument = None,
    model: ModelOption = None,
    out: Out = None,
    overwrite: Overwrite = False,
    *,
    shared: Shared,
) -> None:
    """Score rows by what they need of the image.

    Each row is scored once per function, by what its answer loses when the function's layers can't see the image.
    Scores go into the folder --out; after an interruption the same command continues.
    """
    with extras():
        from vfl.select.settings import ScoreConfig
    settings = read_settings(ScoreConfig, scoring(shared), data=paths(data), model=model, out=out)
    finish_scores(score_with(settings, overwrite=overwrite))


@app.command("filter", cls=Command, epilog=examples(__doc__, "select filter"))
@takes(reading_options, choosing_options, config_options, required=["scores", "out", "budget"])
def filter_command(
    scores: ScoresArgument = None,
    out: Out = None,
    data: DataOption = None,
    overwrite: Overwrite = False,
    *,
    shared: Shared,
) -> None:
    """Choose rows to a budget from stored scores.

    Rows are written in the format they came in, and no model is needed. If the data has been moved since it was scored,
    --data says where it is.
    """
    with extras():
        from vfl.select.subset.write import FilterConfig, filter_scores
    settings = read_settings(FilterConfig, choosing(shared), scores=scores, out=out, data=paths(data))
    show_subset(filter_scores(settings, overwrite=overwrite), settings.out)


@app.command("report", cls=Command, epilog=examples(__doc__, "select report"))
def report_command(
    scores: Annotated[Path, typer.Argument(metavar="SCORES", help="Folder that `vfl select score` wrote.")],
    out: Annotated[Path, typer.Option("--out", help=OUT, rich_help_panel=RESULTS_GROUP)],
    subset: Annotated[Path | None, typer.Option(help="Folder that `vfl select filter` wrote.")] = None,
    data: DataOption = None,
    images: Images = None,
    memory: Memory = None,
) -> None:
    """Write a page about scores and a subset.

    It shows classes, scores, sample cards, the subset beside all data, and agreement with baselines. If the data has
    been moved since it was scored, --data says where it is. --out is a file, such as report.html.
    """
    with extras():
        from vfl.select.report.page import write_selection_report
    path = write_selection_report(scores, out, subset=subset, data=data, images=images, memory=memory or "1GB")
    say(f"Report: {path}")


@app.command("run", cls=Command, epilog=examples(__doc__, "select run"))
@takes(
    reading_options,
    scoring_options,
    model_options,
    choosing_options,
    config_options,
    required=["data", "out", "budget"],
)
def run_command(
    data: DataArgument = None,
    model: ModelOption = None,
    out: Out = None,
    scores: Scores = None,
    overwrite: Overwrite = False,
    *,
    shared: Shared,
) -> None:
    """Score, choose and report in one go.

    Scores that exist already are kept. --config is a recipe: `score:` and `filter:` with the settings of
    these commands, which --set names as score.batch_size=8 or filter.end=low. The subset and its report.html go into
    --out.
    """
    with extras():
        from vfl.select.recipe import SelectRecipe, read_select_recipe
        from vfl.select.report.page import write_selection_report
        from vfl.select.settings import ScoreConfig
        from vfl.select.subset.write import FilterConfig, filter_scores, folder_of
    from vfl.io.config import validated

    file, sets, flags = split_shared(shared)
    chosen = {name: flags[name] for name in names_of(choosing_options) if name in flags}
    scored = {name: value for name, value in flags.items() if name not in chosen}
    recipe: SelectRecipe = read_select_recipe(
        file,
        sets,
        top={"out": out, "scores": scores},
        score=scoring(scored) | given_of({"data": paths(data), "model": model}),
        filter=choosing(chosen),
    )
    # both are checked before the first row is scored
    settings = validated(ScoreConfig, {**recipe.score, "out": recipe.scores_folder}, source="score")
    selection = validated(
        FilterConfig, {**recipe.filter, "scores": recipe.scores_folder, "out": recipe.out}, source="filter"
    )
    selects = not int(os.environ.get("RANK", "0"))  # one of several processes
    if selects:
        folder_of(selection).look(overwrite=overwrite, can_resume=False)
    finish_scores(score_with(settings, overwrite=False))
    if not selects:
        return
    show_subset(filter_scores(selection, overwrite=overwrite), selection.out)
    say(f"Report: {write_selection_report(settings.out, selection.out / 'report.html', subset=selection.out)}")


def score_with(settings: Any, *, overwrite: bool) -> Path:
    """Score; an interruption says how to go on."""
    with extras():
        from vfl.select.score.run import score
    try:
        return score(settings, overwrite=overwrite)
    except KeyboardInterrupt:
        say(f"Interrupted. What was finished is kept in {settings.out}; the same command continues.", error=True)
        raise typer.Exit(130) from None


def finish_scores(folder: Path) -> None:
    """Say where the scores are, once."""
    if int(os.environ.get("RANK", "0")):
        return
    say(f"Scores: {folder}")


@contextmanager
def extras() -> Iterator[None]:
    """Imports that need the extra; without it, a line that says how to install it."""
    from vfl.errors import InputError

    try:
        yield
    except ImportError as error:
        raise InputError(f'Selecting needs {error.name}, which is not installed: pip install "vfl[select]"') from error
