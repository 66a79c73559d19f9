"""`vfl locate MODEL --out DIR`: find the function layers of a model."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text


def command(
    model: Annotated[str | None, typer.Argument(help="Folder or hub id; the embedded test model if left out.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for map.json, report.html, curves.png, pairs.parquet.")
    ] = None,
    probes: Annotated[
        str | None, typer.Option(help="Folder of a probe suite, or a generated style: standard, micro.")
    ] = None,
    functions: Annotated[str | None, typer.Option(help="Names with commas between them, such as counting,ocr.")] = None,
    pairs: Annotated[int | None, typer.Option(help="Generated pairs a function (100).")] = None,
    size: Annotated[int | None, typer.Option(help="Pixels of generated images (448).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of generated probes (0).")] = None,
    mode: Annotated[str | None, typer.Option(help="auto (default), single, window or suffix.")] = None,
    reading: Annotated[str | None, typer.Option(help="Who sees the swap: text (default), answer, all.")] = None,
    layers: Annotated[
        list[str] | None, typer.Option(help="Your own layers for a function, such as counting=10-12,14.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, float16, bfloat16, float64.")] = None,
    device: Annotated[str | None, typer.Option(help="Such as cuda:0 or cpu.")] = None,
    device_map: Annotated[str | None, typer.Option(help="Spread the model over devices, such as auto.")] = None,
    quantize: Annotated[str | None, typer.Option(help="4bit or 8bit.")] = None,
    attention: Annotated[str | None, typer.Option(help="sdpa (default) or eager.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    chat_template: Annotated[Path | None, typer.Option(help="File with a chat template.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
    config: Annotated[Path | None, typer.Option(help="YAML with these settings; flags override it.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace another run's results in --out.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted run in --out.")] = False,
) -> None:
    """Find a model's function layers by swapping one image's keys and values for another's, layer by layer."""
    from vfl.io.config import read_config
    from vfl.locate.config import LocateConfig
    from vfl.locate.run import run

    given: dict[str, Any] = {
        "model": model,
        "out": out,
        "probes": probes,
        "functions": functions.split(",") if functions else None,
        "pairs": pairs,
        "size": size,
        "seed": seed,
        "mode": mode,
        "reading": reading,
        "layers": dict(map(function_layers, layers)) if layers else None,
        "dtype": dtype,
        "device": device,
        "device_map": device_map,
        "quantize": quantize,
        "attention": attention,
        "revision": revision,
        "chat_template": chat_template,
        "trust_remote_code": trust_remote_code or None,
    }
    settings = read_config(LocateConfig, config, given)
    try:
        fmap = run(settings, overwrite=overwrite, resume=resume)
    except KeyboardInterrupt:
        message = f"Interrupted. What was finished is kept in {settings.out}; go on with the same command and --resume."
        Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    console = Console()
    console.print(table_of(fmap))
    for name, entry in fmap.functions.items():
        for warning in entry.warnings:
            console.print(f"Warning: {name}: {warning}", style="yellow", markup=False, highlight=False)
    console.print(f"Report: {settings.out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
    print_recovery(fmap, console)


def table_of(fmap: Any) -> Table:
    """The map as a table for the terminal."""
    from vfl.io.layers import layer_list
    from vfl.report.words import headline, interval, percent

    table = Table(title=f"Function layers of {fmap.model.id} ({fmap.model.num_layers} layers)", box=SIMPLE_HEAD)
    for heading in ("function", "layers", "changed", "95 % CI", "kept", "accuracy"):
        table.add_column(heading, justify="left" if heading in ("function", "layers") else "right", no_wrap=True)
    for name, entry in fmap.functions.items():
        rate, ends, _ = headline(entry) or (None, None, "")
        layers = layer_list(entry.layers) + (", distributed" if entry.distributed else "")
        row = (name, layers, percent(rate) if rate is not None else "-", interval(ends) if ends else "-")
        table.add_row(*map(Text, (*row, f"{entry.kept}/{entry.pairs}", percent(entry.accuracy))))
    return table


def function_layers(text: str) -> tuple[str, list[int]]:
    """ "counting=10-12,14" -> ("counting", [10, 11, 12, 14])."""
    from vfl.errors import InputError
    from vfl.io.layers import parse_layers

    name, equals, spans = text.partition("=")
    if not equals:
        raise InputError(f"--layers {text!r} is not of the form FUNCTION=10-12,14.")
    return name, parse_layers(spans)


def print_recovery(fmap: Any, console: Console) -> None:
    """On the embedded model the truth is known: say how much of it was recovered."""
    from vfl.io.layers import layer_list
    from vfl.loading.load import EMBEDDED
    from vfl.locate.recovery import read_truth, score, total

    truth = read_truth(EMBEDDED) if fmap.model.id == "embedded" else None
    if truth is None:
        return
    table = Table(title="Planted against recovered (a test bed, so the truth is known)", box=SIMPLE_HEAD)
    for heading in ("function", "planted", "recovered", "precision", "recall"):
        table.add_column(heading, justify="right" if heading in ("precision", "recall") else "left")
    scores = score(fmap, truth)
    for name, one in scores.items():
        layers = map(layer_list, (sorted(truth[name]), fmap.functions[name].layers))
        table.add_row(name, *layers, f"{one.precision:.2f}", f"{one.recall:.2f}")
    console.print(table)
    whole = total(scores)
    console.print(
        f"Recovered against planted: precision {whole.precision:.2f}, recall {whole.recall:.2f} "
        f"over {whole.planted} planted layers",
        markup=False,
        highlight=False,
    )
