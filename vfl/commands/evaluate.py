"""`vfl evaluate MODEL [--adapter A] --data D --out DIR`: accuracy per function or per column, with intervals."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text


def command(
    model: Annotated[str | None, typer.Argument(help="Folder or hub id; the embedded test model if left out.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for evaluation.json and answers.jsonl.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter to put on the model.")] = None,
    probes: Annotated[
        str | None, typer.Option(help="Folder of a probe suite, or a generated style: standard, micro.")
    ] = None,
    functions: Annotated[str | None, typer.Option(help="Names with commas between them, such as counting,ocr.")] = None,
    pairs: Annotated[int | None, typer.Option(help="Generated pairs a function (100).")] = None,
    size: Annotated[int | None, typer.Option(help="Pixels of generated images (448).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of generated probes (1).")] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="Data whose rows end with the right answer; repeat for several sets.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the images that the data's rows name.")] = None,
    column: Annotated[str | None, typer.Option(help="Column of the data to give accuracies by.")] = None,
    format: Annotated[str | None, typer.Option(help="Kind of the data's rows, where it isn't clear.")] = None,
    match: Annotated[str | None, typer.Option(help="Compare answers as auto, number, yesno, text or exact.")] = None,
    skip_bad_rows: Annotated[bool, typer.Option(help="Leave out rows that can't be asked, and count them.")] = False,
    baseline: Annotated[Path | None, typer.Option(help="Another run's evaluation.json to compare with.")] = None,
    batch: Annotated[int | None, typer.Option(help="Questions in a batch (16).")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, float16, bfloat16, float64.")] = None,
    device: Annotated[str | None, typer.Option(help="Such as cuda:0 or cpu.")] = None,
    device_map: Annotated[str | None, typer.Option(help="Spread the model over devices, such as auto.")] = None,
    quantize: Annotated[str | None, typer.Option(help="4bit or 8bit.")] = None,
    attention: Annotated[str | None, typer.Option(help="sdpa (default) or eager.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    chat_template: Annotated[Path | None, typer.Option(help="File with a chat template.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
    config: Annotated[Path | None, typer.Option(help="YAML with these settings; flags override it.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace another evaluation in --out.")] = False,
) -> None:
    """Ask a model held-out probes or your own data; give accuracies with 95 % intervals, paired with a baseline's."""
    from vfl.evaluate.config import EvaluateConfig
    from vfl.evaluate.result import read_evaluation
    from vfl.evaluate.run import refuse_if_taken, run
    from vfl.io.config import read_config
    from vfl.loading.config import load_from

    given: dict[str, Any] = {
        "model": model,
        "out": out,
        "adapter": adapter,
        "probes": probes,
        "functions": functions.split(",") if functions else None,
        "pairs": pairs,
        "size": size,
        "seed": seed,
        "data": data_sets(data, images, column, format, match, skip_bad_rows),
        "baseline": baseline,
        "batch": batch,
        "dtype": dtype,
        "device": device,
        "device_map": device_map,
        "quantize": quantize,
        "attention": attention,
        "revision": revision,
        "chat_template": chat_template,
        "trust_remote_code": trust_remote_code or None,
    }
    settings = read_config(EvaluateConfig, config, given)
    refuse_if_taken(settings.out, overwrite=overwrite)
    if settings.baseline is not None:
        read_evaluation(settings.baseline)  # before the model is loaded
    vlm = load_from(settings)
    on_it = put_on(vlm, settings.adapter) if settings.adapter is not None else None
    result = run(settings, vlm, adapter=on_it, progress=True)
    console = Console()
    console.print(table_of(result))
    for note in result.notes:
        console.print(f"Note: {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Results: {settings.out / 'evaluation.json'}", markup=False, highlight=False, soft_wrap=True)


def put_on(vlm: Any, folder: Path) -> Any:
    """Put an adapter on the model; which one it is."""
    from vfl.errors import InputError
    from vfl.evaluate.result import AdapterId
    from vfl.models.identity import weights_sha256

    try:
        from vfl.train.adapter.files import load_adapter
    except ImportError as error:
        raise InputError(f'Adapters need {error.name}, which is not installed: pip install "vfl[train]"') from error
    load_adapter(vlm.model, folder)
    return AdapterId(path=str(folder), sha256=weights_sha256(folder))


def data_sets(
    paths: list[Path] | None,
    images: Path | None,
    column: str | None,
    format: str | None,
    match: str | None,
    skip_bad_rows: bool,
) -> dict[str, Any] | None:
    """The data options as the configuration holds them; each set is named after its file or folder."""
    from vfl.errors import InputError

    shared = {"images": images, "column": column, "format": format, "match": match}
    options: dict[str, Any] = {key: value for key, value in shared.items() if value is not None}
    if skip_bad_rows:
        options["on_bad_row"] = "skip"
    if not paths:
        if options:
            named = ", ".join(f"--{name.replace('_', '-')}" for name in options)
            raise InputError(f"{named} says how to read --data, but no --data was given.")
        return None
    sets = {path.stem: {"path": path, **options} for path in paths}
    if len(sets) < len(paths):
        raise InputError(
            "Several --data have the same name. Give a --config with `data:`, where each set has its own name."
        )
    return sets


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
    for group, found in result.groups.items():
        row = [group, str(found.n), percent(found.accuracy), interval((found.low, found.high))]
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
