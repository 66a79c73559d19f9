"""`vfl select score|filter|report|run`: cut a data set to a budget by what each row needs of the image.

vfl select score llava.json --images train2017 --model Qwen/Qwen2.5-VL-3B-Instruct --map runs/map --out scores
vfl select filter scores --budget 20% --out subset
vfl select filter scores --budget "2M answer tokens" --policy target --target ocr=2,counting=1 --out subset
vfl select report scores --subset subset --out report.html
vfl select run llava.json --images train2017 --model Qwen/Qwen2.5-VL-3B-Instruct --map map --budget 20% --out subset
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfl.commands.help import Command, examples
from vfl.commands.options import (
    DATA_GROUP,
    OUT,
    RESULTS_GROUP,
    AllowOtherModel,
    BadRows,
    Batch,
    DataArgument,
    DataOption,
    Format,
    Functions,
    Images,
    Layers,
    Map,
    ModelOption,
    Out,
    Overwrite,
    Seed,
    Shared,
    by_function,
    choice,
    config_options,
    given_of,
    model_options,
    names_of,
    read_settings,
    split_shared,
    takes,
)

app = typer.Typer(no_args_is_help=True, help="Choose the rows to train on, to a budget.")
POLICIES = (
    "balanced", "quota", "target", "top", "temperature", "random", "stratified-random", "length", "perplexity", "el2n",
    "vig", "coincide", "ccs", "prism", "semdedup", "no-image-gap",
)  # fmt: skip
CHOICE = "Choice"

Split = Annotated[
    str | None, typer.Option("--split", help="Split of a saved dataset to use.", rich_help_panel=DATA_GROUP)
]
Remote = Annotated[
    bool,
    typer.Option("--allow-remote", help="Fetch images whose names are web addresses.", rich_help_panel=DATA_GROUP),
]
ImageColumn = Annotated[
    str | None,
    typer.Option(
        "--image-column",
        metavar="NAMES",
        help="Column with the images, or several in order.",
        show_default="images or image",
        rich_help_panel=DATA_GROUP,
    ),
]
Ablation = Annotated[
    str | None,
    choice(
        "--ablation",
        values=("hide", "blank", "mean"),
        help="What the text reads in a function's layers: no image, a blank one, or the mean of many.",
        default="hide",
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        help='Such as 20%, 5000, "2M answer tokens", "1B tokens", "3e18 FLOPs".',
        rich_help_panel=CHOICE,
    ),
]
PolicyName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=lambda: list(POLICIES),
        help=f"How the budget is filled: {', '.join(POLICIES)}.",
        show_default="balanced",
        rich_help_panel=CHOICE,
    ),
]
Shares = Annotated[
    str | None,
    typer.Option(
        metavar="SHARES",
        help="Share of each class: equal, proportional, or such as counting=2,ocr=1.",
        show_default="equal",
        rich_help_panel=CHOICE,
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Functions for the policy target: ocr, or with weights ocr=2,counting=1.",
        rich_help_panel=CHOICE,
    ),
]
Include = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Further classes to choose from, such as blind,text.", rich_help_panel=CHOICE),
]
Unsolved = Annotated[
    str | None,
    choice(
        "--unsolved",
        values=("keep", "own", "drop"),
        help="Rows that the model gets wrong: keep in their class, in a class of their own, or drop.",
        default="keep",
        group=CHOICE,
    ),
]
Duplicates = Annotated[
    str | None,
    choice(
        "--duplicates",
        values=("keep", "exact", "near"),
        help="Repeated rows: keep them, leave out exact copies, or near ones too.",
        default="keep",
        group=CHOICE,
    ),
]
Diversity = Annotated[
    int | None,
    typer.Option(
        help="Leave out a row whose image hash differs from a better row's in at most this many of 64 bits.",
        rich_help_panel=CHOICE,
    ),
]
TokenWeights = Annotated[
    float | None,
    typer.Option(
        "--token-weights",
        help="Weigh answer tokens: 1 where hiding the image changes the log-probability by this many nats, else 0.",
        rich_help_panel=CHOICE,
    ),
]
CopyImages = Annotated[
    bool,
    typer.Option("--copy-images", help="Copy the rows' image files into the subset.", rich_help_panel=RESULTS_GROUP),
]
Memory = Annotated[str | None, typer.Option("--memory", help="Memory limit of duckdb.", show_default="1GB")]
Parameters = Annotated[
    str | None,
    typer.Option(
        "--parameters",
        metavar="NUMBER",
        help="Number of parameters of the model, such as 7e9, for a budget in FLOPs.",
        rich_help_panel=CHOICE,
    ),
]
Scores = Annotated[
    Path | None,
    typer.Option("--scores", help="Folder for the scores.", show_default="OUT-scores", rich_help_panel=RESULTS_GROUP),
]
ScoresArgument = Annotated[Path | None, typer.Argument(metavar="SCORES", help="Folder that `vfl select score` wrote.")]


def reading_options(
    images: Images = None,
    format: Format = None,
    split: Split = None,
    allow_remote: Remote = False,
    image_column: ImageColumn = None,
) -> None:
    """How data is read."""


def scoring_options(
    map: Map = None,
    functions: Functions = None,
    layers: Layers = None,
    allow_other_model: AllowOtherModel = False,
    ablation: Ablation = None,
    batch: Batch = None,
    on_bad_row: BadRows = None,
) -> None:
    """What is scored, at whose layers."""


def choosing_options(
    budget: Budget = None,
    policy: PolicyName = None,
    shares: Shares = None,
    target: Target = None,
    include: Include = None,
    unsolved: Unsolved = None,
    duplicates: Duplicates = None,
    diversity: Diversity = None,
    parameters: Parameters = None,
    memory: Memory = None,
    seed: Seed = None,
    copy_images: CopyImages = False,
    token_weights: TokenWeights = None,
) -> None:
    """What is chosen."""


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
    these commands, which --set names as score.batch=8 or filter.end=low. The subset and its report.html go into --out.
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
    folder_of(selection).refuse_if_taken(overwrite=overwrite, can_resume=False)
    finish_scores(score_with(settings, overwrite=False))
    if int(os.environ.get("RANK", "0")):
        return  # of several processes, one selects
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


def show_subset(manifest: Mapping[str, Any], out: Path) -> None:
    """The subset as a table, and what to do with it."""
    table = Table(title=Text(f"{manifest['rows']:,} of {manifest['scored']:,} scored rows"), box=SIMPLE_HEAD)
    for heading in ("class", "rows", "unsolved", "chosen", "kept"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for name, counts in manifest["counts"]["class"].items():
        kept = f"{100 * counts['chosen_rows'] / max(counts['rows'], 1):.1f} %"
        table.add_row(Text(name), f"{counts['rows']:,}", f"{counts['unsolved']:,}", f"{counts['chosen_rows']:,}", kept)
    Console().print(table)
    show_coverage(manifest["coverage"])
    for what, count in manifest.get("balance", {}).get("left_out", {}).items():
        say(f"Left out or last, {what}: {count:,} rows")
    budget = manifest["budget"]
    say(f"Budget: {budget['spent']:,} of {budget['limit']:,} {budget['unit']}")
    for note in manifest["notes"]:
        say(f"Note: {note}")
    if counted := manifest.get("token_weights"):
        share = f"{counted['kept']:,} of {counted['tokens']:,} answer tokens count"
        say(f"Token weights: {share} in training with data.token_weights={out / counted['file']}")
    for file in manifest["files"]:
        say(f"Data: {out / file}")
    if manifest["images"]:
        say(f"Images that rows name are in {manifest['images']}")


def paths(data: list[Path] | None) -> tuple[Path, ...] | None:
    """No path is none given."""
    return tuple(data) if data else None


def show_coverage(coverage: Mapping[str, Any]) -> None:
    """Answers and kinds of question of the subset beside those of the data, and how much is unsolved in both."""
    for title, heading in (("answers", "answer"), ("openings", "questions that begin")):
        if not coverage[title]:
            continue
        table = Table(box=SIMPLE_HEAD)
        for name in (heading, "data", "subset"):
            table.add_column(name, justify="left" if name == heading else "right")
        for stratum in coverage[title]:
            shares = (stratum["rows"] / max(coverage["rows"], 1), stratum["chosen"] / max(coverage["chosen"], 1))
            table.add_row(Text(stratum["text"]), *(f"{100 * share:.1f} %" for share in shares))
        Console().print(table)
    unsolved = coverage["unsolved"]
    say(f"Unsolved: {100 * unsolved['data']:.1f} % of the data, {100 * unsolved['subset']:.1f} % of the subset")


def scoring(shared: Mapping[str, Any]) -> dict[str, Any]:
    """What to score, as settings."""
    return dict(shared) | given_of({"layers": by_function(shared.get("layers"))})


def choosing(shared: Mapping[str, Any]) -> dict[str, Any]:
    """What to choose, as settings."""
    return dict(shared) | given_of(
        {
            "shares": weights(shared.get("shares")),
            "target": weights(shared.get("target")),
            "parameters": whole(shared.get("parameters"), "--parameters"),
        }
    )


def weights(written: str | None) -> Any:
    """ "ocr=2,counting=1" as numbers by name; anything without "=" stays as it is."""
    from vfl.errors import InputError

    if written is None or "=" not in written:
        return written
    try:
        return {name.strip(): float(number) for name, number in (part.split("=") for part in written.split(","))}
    except ValueError:
        raise InputError(f"{written!r} is no list of weights; write such as ocr=2,counting=1.") from None


def whole(written: str | None, name: str) -> int | None:
    """ "7e9" as a number."""
    from vfl.errors import InputError

    try:
        return None if written is None else int(float(written))
    except (ValueError, OverflowError):
        raise InputError(f"{name} is {written!r}; expected a number, such as 7e9.") from None


@contextmanager
def extras() -> Iterator[None]:
    """Imports that need the extra; without it, a line that says how to install it."""
    from vfl.errors import InputError

    try:
        yield
    except ImportError as error:
        raise InputError(f'Selecting needs {error.name}, which is not installed: pip install "vfl[select]"') from error


def say(line: str, *, error: bool = False) -> None:
    """A line for a person, or for the next command."""
    Console(stderr=error).print(line, markup=False, highlight=False, soft_wrap=True)
