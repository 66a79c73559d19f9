"""`vfl measure MODEL --metrics all --data D --out DIR`: metrics, their figures and an interactive page."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text


def command(
    model: Annotated[str | None, typer.Argument(help="Folder or hub id; the embedded test model if left out.")] = None,
    metrics: Annotated[str | None, typer.Option(help="all (default), or names with commas between them.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Questions and answers (any format), a probe suite, or generated probes: standard, micro."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.json, report.html and figures/.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the images that the data's rows name.")] = None,
    column: Annotated[str | None, typer.Option(help="Column of the data to group questions by.")] = None,
    format: Annotated[str | None, typer.Option(help="Kind of the data's rows, where it isn't clear.")] = None,
    match: Annotated[str | None, typer.Option(help="Compare answers as auto, number, yesno or text.")] = None,
    choices: Annotated[str | None, typer.Option(help="The answers that rows choose from, such as A,B,C,D.")] = None,
    skip_bad_rows: Annotated[bool, typer.Option(help="Leave out rows that can't be asked, and say which.")] = False,
    functions: Annotated[str | None, typer.Option(help="Only these, such as counting,ocr.")] = None,
    pairs: Annotated[
        int | None, typer.Option(help="Generated pairs a function (12), or at most so many of a suite or of rows.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Pixels of generated images (448).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of generated probes (1).")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="An option of a metric, such as cosine.eps=0.02; repeat for more.")
    ] = None,
    lens_images: Annotated[int | None, typer.Option(help="Pictures of the interactive lens (3).")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, float16, bfloat16, float64.")] = None,
    device: Annotated[str | None, typer.Option(help="Such as cuda:0 or cpu.")] = None,
    device_map: Annotated[str | None, typer.Option(help="Spread the model over devices, such as auto.")] = None,
    quantize: Annotated[str | None, typer.Option(help="4bit or 8bit.")] = None,
    attention: Annotated[str | None, typer.Option(help="sdpa (default) or eager.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    chat_template: Annotated[Path | None, typer.Option(help="File with a chat template.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="YAML with these settings, options of metrics and a judge; flags override it.")
    ] = None,
    paper: Annotated[
        Path | None, typer.Option(help="File of a published table (recipes/papers): its data, metrics and numbers.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace another run's results in --out.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on with a run in --out, or add metrics to it.")] = False,
) -> None:
    """Measure what a model does with an image, layer by layer and head by head."""
    from vfl.io.config import read_yaml, set_dotted, validated
    from vfl.measure.config import MeasureConfig
    from vfl.measure.run import run

    given: dict[str, Any] = {
        "model": model,
        "metrics": metrics,
        "data": data,
        "out": out,
        "images": images,
        "column": column,
        "format": format,
        "match": match,
        "choices": choices.split(",") if choices else None,
        "on_bad_row": "skip" if skip_bad_rows else None,
        "functions": functions.split(",") if functions else None,
        "pairs": pairs,
        "size": size,
        "seed": seed,
        "lens_images": lens_images,
        "dtype": dtype,
        "device": device,
        "device_map": device_map,
        "quantize": quantize,
        "attention": attention,
        "revision": revision,
        "chat_template": chat_template,
        "trust_remote_code": trust_remote_code or None,
    }
    if paper:
        _measure_paper(paper, given | {"set": set_ or None, "config": config}, overwrite=overwrite, resume=resume)
        return
    values = read_yaml(config) if config else {}
    values |= {key: value for key, value in given.items() if value is not None}
    for override in set_ or ():
        set_dotted(values, f"options.{override}")
    settings = validated(MeasureConfig, values, source=str(config) if config else "settings")
    try:
        found = run(settings, overwrite=overwrite, resume=resume)
    except KeyboardInterrupt:
        raise _interrupted(str(settings.out)) from None
    console = Console()
    console.print(table_of(found))
    for name, reason in found.not_measured.items():
        console.print(f"Not measured: {name}: {reason}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Report: {settings.out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def _measure_paper(paper: Path, given: dict[str, Any], *, overwrite: bool, resume: bool) -> None:
    from vfl.measure.paper import run_paper
    from vfl.measure.published import PUBLISHED, beside_table

    try:
        settings, beside = run_paper(paper, given, overwrite=overwrite, resume=resume)
    except KeyboardInterrupt:
        raise _interrupted("the output folder") from None
    console = Console()
    console.print(beside_table(settings.title, beside))
    for text in (f"Source: {settings.source}", *settings.notes):
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(f"Both numbers: {settings.out / PUBLISHED}", markup=False, highlight=False, soft_wrap=True)


def _interrupted(out: str) -> typer.Exit:
    message = f"Interrupted. Finished metrics are kept in {out}; go on with the same command and --resume."
    Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(130)


def table_of(found: Any) -> Table:
    """The metrics' scalars as a table for the terminal."""
    from vfl.measure.report.guide import guide_of, ordered
    from vfl.measure.report.panels import shown, spoken

    table = Table(title=Text(f"Metrics of {found.model.id}"), box=SIMPLE_HEAD)
    for heading in ("metric", "what", "value", "95 % CI", "n"):
        table.add_column(
            heading, justify="left" if heading in ("metric", "what") else "right", no_wrap=heading != "what"
        )
    for name in ordered(list(found.metrics)):
        guide = guide_of(name)
        label = name
        for what, one in found.metrics[name]["scalars"].items():
            own = guide.unit_of(what)
            ends = "" if one["low"] is None else f"{shown(one['low'], own)} to {shown(one['high'], own)}"
            table.add_row(*map(Text, (label, spoken(what), shown(one["value"], own), ends, str(one["n"]))))
            label = ""
    return table
