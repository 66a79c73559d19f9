"""`vfl evaluate MODEL [--adapter A] --data D --out DIR`: accuracy per function or per column, with intervals.

vfl evaluate --out runs/evaluation --pairs 50
vfl evaluate Qwen/Qwen2.5-VL-3B-Instruct --data cvbench.jsonl --images images --column task --out before
vfl evaluate Qwen/Qwen2.5-VL-3B-Instruct --adapter sft/adapter --data cv=cvbench.jsonl --baseline before --out after
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfl.commands.options import (
    BadRows,
    Batch,
    Column,
    DataOption,
    Format,
    Functions,
    Images,
    Match,
    MaxNewTokens,
    ModelArgument,
    Out,
    Overwrite,
    Pairs,
    Probes,
    SeedOfOthers,
    Shared,
    Size,
    config_options,
    given_of,
    model_options,
    read_settings,
    takes,
)


@takes(model_options, config_options, required=["out"])
def command(
    model: ModelArgument = None,
    out: Out = None,
    adapter: Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter to use with the model.")] = None,
    probes: Probes = None,
    functions: Functions = None,
    pairs: Pairs = None,
    size: Size = None,
    seed: SeedOfOthers = None,
    max_new_tokens: MaxNewTokens = None,
    data: DataOption = None,
    images: Images = None,
    column: Column = None,
    format: Format = None,
    match: Match = None,
    on_bad_row: BadRows = None,
    baseline: Annotated[Path | None, typer.Option(help="evaluation.json of another run to compare with.")] = None,
    batch_size: Batch = None,
    overwrite: Overwrite = False,
    *,
    shared: Shared,
) -> None:
    """Measure accuracy on pairs or on your own data.

    Accuracies have 95 % intervals, and paired differences from a --baseline. Rows of --data end with the right answer;
    each file or folder is a set of its own, named after it or by --data NAME=PATH (repeatable). Writes evaluation.json
    and answers.jsonl into the folder --out.
    """
    from vfl.evaluate.config import EvaluateConfig
    from vfl.evaluate.run import run

    reading = {"images": images, "column": column, "format": format, "match": match, "on_bad_row": on_bad_row}
    settings = read_settings(
        EvaluateConfig,
        shared,
        model=model,
        out=out,
        adapter=adapter,
        probes=probes,
        functions=functions,
        pairs=pairs,
        size=size,
        seed=seed,
        data=data_sets(data, reading),
        max_new_tokens=max_new_tokens,
        baseline=baseline,
        batch_size=batch_size,
    )
    result = run(settings, overwrite=overwrite, progress=True)
    console = Console()
    console.print(table_of(result))
    for note in result.notes:
        console.print(f"Note: {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Results: {settings.out / 'evaluation.json'}", markup=False, highlight=False, soft_wrap=True)


def data_sets(paths: list[Path] | None, reading: dict[str, Any]) -> dict[str, Any] | None:
    """The data options as the configuration holds them; each set is named after its file or folder."""
    from vfl.errors import InputError

    options = given_of(reading)
    if not paths:
        if options:
            named = ", ".join(f"--{name.replace('_', '-')}" for name in options)
            raise InputError(f"{named} says how to read --data, but no --data was given.")
        return None
    sets: dict[str, Any] = {}
    for written in paths:
        name, path = named_set(written)
        if name in sets:
            raise InputError(
                f"Two --data are called {name}: {sets[name]['path']} and {path}. Name them, as in --data test={path}."
            )
        sets[name] = {"path": path, **options}
    return sets


def named_set(written: Path) -> tuple[str, Path]:
    """ "test=rows.jsonl" -> its name and its path; a path alone is named after its file or folder.

    A file whose own name has "=" is taken as it is, if it is there.
    """
    name, equals, path = str(written).partition("=")
    if written.exists() or not equals or not name or not path or "/" in name:
        return written.stem, written
    return name, Path(path)


def table_of(result: Any) -> Table:
    """An evaluation as a table for the terminal."""
    from vfl.report.words import interval, percent

    name = result.model.id + (f" with {result.adapter.path}" if result.adapter else "")
    paired = result.differences
    table = Table(title=Text(f"Accuracy of {name}"), box=SIMPLE_HEAD)
    headings = ["group", "n", "accuracy", "95 % CI"]
    if paired:
        headings += ["baseline", "difference", "95 % CI", "gained", "lost"]
    for heading in headings:
        # In a narrow terminal the numbers wrap; which group they belong to stays.
        name_column = heading == "group"
        table.add_column(heading, justify="left" if name_column else "right", no_wrap=name_column)
    for group, accuracy in result.groups.items():
        ends = interval((accuracy.low, accuracy.high))
        row = [group, str(accuracy.n), percent(accuracy.accuracy), ends]
        if paired:
            change = paired[group]
            ends = f"{100 * change.low:+.0f} to {100 * change.high:+.0f}"
            row += [
                percent(change.before),
                f"{100 * change.difference:+.1f}",
                ends,
                str(change.gained),
                str(change.lost),
            ]
        table.add_row(*map(Text, row))
    return table
