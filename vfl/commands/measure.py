"""`vfl measure MODEL --metrics all --data D --out DIR`: metrics, their figures and an interactive page.

vfl measure --metrics var,cosine --out runs/measure
vfl measure Qwen/Qwen2.5-VL-3B-Instruct --metrics all --data mmbench.jsonl --choices A,B,C,D --out runs/measure
vfl measure Qwen/Qwen2.5-VL-3B-Instruct --metrics head_weight --out runs/measure --resume
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfl.commands.options import (
    DATA,
    DATA_GROUP,
    PAIRS,
    PAIRS_GROUP,
    BadRows,
    Column,
    Format,
    Functions,
    Images,
    Match,
    MaxNewTokens,
    ModelArgument,
    Out,
    Overwrite,
    Resume,
    SeedOfOthers,
    Shared,
    Size,
    config_options,
    given_of,
    model_options,
    read_settings,
    split_shared,
    takes,
)


@takes(model_options, config_options, required=["out"])
def command(
    model: ModelArgument = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="NAMES", help="all, or names such as var,cosine.", show_default="all")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="PATH", help=DATA, rich_help_panel=DATA_GROUP)] = None,
    out: Out = None,
    images: Images = None,
    column: Column = None,
    format: Format = None,
    match: Match = None,
    choices: Annotated[
        str | None,
        typer.Option(help="The answers to choose from, such as A,B,C,D.", rich_help_panel=DATA_GROUP),
    ] = None,
    on_bad_row: BadRows = None,
    functions: Functions = None,
    pairs: Annotated[
        int | None,
        typer.Option("--pairs", help=PAIRS, show_default="12 generated ones, or all", rich_help_panel=PAIRS_GROUP),
    ] = None,
    size: Size = None,
    seed: SeedOfOthers = None,
    max_new_tokens: MaxNewTokens = None,
    lens_images: Annotated[
        int | None, typer.Option(help="Number of pictures in the interactive lens.", show_default="3")
    ] = None,
    paper: Annotated[
        Path | None,
        typer.Option(help="File of a published table (recipes/papers) to reproduce: its data, metrics and numbers."),
    ] = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    *,
    shared: Shared,
) -> None:
    """Measure what a model does with its image.

    Layer by layer and head by head, with the metrics of several papers. --data may also be the folder of a probe suite,
    or standard or micro to generate one. Options of a metric are set like --set options.cosine.eps=0.02. Writes
    metrics.json, report.html and figures/ into the folder --out; --resume also adds metrics to those that are there.
    """
    from vfl.measure.config import MeasureConfig
    from vfl.measure.run import run

    own = {
        "model": model,
        "metrics": metrics,
        "data": data,
        "out": out,
        "images": images,
        "column": column,
        "format": format,
        "match": match,
        "choices": choices,
        "on_bad_row": on_bad_row,
        "functions": functions,
        "pairs": pairs,
        "size": size,
        "seed": seed,
        "max_new_tokens": max_new_tokens,
        "lens_images": lens_images,
    }
    if paper:
        file, sets, loading = split_shared(shared)
        beside = given_of(own) | loading | given_of({"config": file, "set": sets or None})
        _measure_paper(paper, beside, overwrite=overwrite, resume=resume)
        return
    settings = read_settings(MeasureConfig, shared, **own)
    try:
        measured = run(settings, overwrite=overwrite, resume=resume)
    except KeyboardInterrupt:
        raise _interrupted(str(settings.out)) from None
    console = Console()
    console.print(table_of(measured))
    for name, reason in measured.not_measured.items():
        console.print(f"Not measured: {name}: {reason}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Report: {settings.out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def _measure_paper(paper: Path, settings: dict[str, Any], *, overwrite: bool, resume: bool) -> None:
    from vfl.measure.paper import run_paper
    from vfl.measure.published import PUBLISHED, published_table

    try:
        table, beside = run_paper(paper, settings, overwrite=overwrite, resume=resume)
    except KeyboardInterrupt:
        raise _interrupted("the output folder") from None
    console = Console()
    console.print(published_table(table.title, beside))
    for text in (f"Source: {table.source}", *table.notes):
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(f"Both numbers: {table.out / PUBLISHED}", markup=False, highlight=False, soft_wrap=True)


def _interrupted(out: str) -> typer.Exit:
    message = f"Interrupted. Finished metrics are kept in {out}; go on with the same command and --resume."
    Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(130)


def table_of(measured: Any) -> Table:
    """The metrics' scalars as a table for the terminal."""
    from vfl.measure.guide import guide_of, ordered
    from vfl.report.words import shown, spoken

    table = Table(title=Text(f"Metrics of {measured.model.id}"), box=SIMPLE_HEAD)
    for heading in ("metric", "what", "value", "95 % CI", "n"):
        table.add_column(
            heading, justify="left" if heading in ("metric", "what") else "right", no_wrap=heading != "what"
        )
    for name in ordered(list(measured.metrics)):
        guide = guide_of(name)
        label = name
        for what, scalar in measured.metrics[name]["scalars"].items():
            own = guide.unit_of(what)
            ends = "" if scalar["low"] is None else f"{shown(scalar['low'], own)} to {shown(scalar['high'], own)}"
            table.add_row(*map(Text, (label, spoken(what), shown(scalar["value"], own), ends, str(scalar["n"]))))
            label = ""
    return table
