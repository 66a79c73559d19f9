"""`vfl locate MODEL --out DIR`: find the function layers of a model.

vfl locate --out runs/embedded --pairs 20
vfl locate Qwen/Qwen2.5-VL-3B-Instruct --out runs/qwen2.5-vl-3b
vfl locate Qwen/Qwen2.5-VL-3B-Instruct --probes my-pairs --functions counting --mode single --out runs/mine
vfl locate Qwen/Qwen2.5-VL-3B-Instruct --pairs 200 --screen --out runs/screened
vfl locate --config runs/mine/settings.yaml --set pairs=200 --out runs/again
"""

from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfl.commands.options import (
    Functions,
    Group,
    Layers,
    MaxNewTokens,
    ModelArgument,
    Out,
    Overwrite,
    Pairs,
    Probes,
    Reading,
    Resume,
    Seed,
    Shared,
    Size,
    by_function,
    choice,
    config_options,
    model_options,
    read_settings,
    takes,
)


@takes(model_options, config_options, required=["out"])
def command(
    model: ModelArgument = None,
    out: Out = None,
    probes: Probes = None,
    functions: Functions = None,
    pairs: Pairs = None,
    group: Group = None,
    size: Size = None,
    seed: Seed = None,
    mode: Annotated[
        str | None,
        choice(
            "--mode",
            values=("auto", "single", "window", "suffix"),
            help="Which layers are swapped together; auto: as many as a function needs.",
            default="auto",
        ),
    ] = None,
    screen: Annotated[
        bool, typer.Option("--screen", help="Skip layers that gradients estimate to do next to nothing.")
    ] = False,
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights", help="Sweep the pairs with weights drawn anew, too: no layer should be named."
        ),
    ] = False,
    off_manifold: Annotated[
        bool, typer.Option("--off-manifold", help="Measure how far swapped states lie from ordinary ones.")
    ] = False,
    reading: Reading = None,
    layers: Layers = None,
    max_new_tokens: MaxNewTokens = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    *,
    shared: Shared,
) -> None:
    """Find the function layers of a model.

    One image's keys and values are swapped for those of another, layer by layer, and the answers that change are
    counted. Writes map.json, report.html, curves.png and pairs.parquet into the folder --out. For several GPUs, run
    torchrun --module vfl.locate.launch MODEL --out DIR.
    """
    from vfl.locate.config import LocateConfig
    from vfl.locate.run import run

    settings = read_settings(
        LocateConfig,
        shared,
        model=model,
        out=out,
        probes=probes,
        functions=functions,
        pairs=pairs,
        group=group,
        size=size,
        seed=seed,
        mode=mode,
        screen=screen or None,
        random_weights=random_weights or None,
        off_manifold=off_manifold or None,
        reading=reading,
        layers=by_function(layers),
        max_new_tokens=max_new_tokens,
    )
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
        if entry.screen:
            console.print(f"Screen: {name}: {entry.screen.in_words()}.", markup=False, highlight=False)
        if entry.random_weights:
            console.print(f"{name}: {entry.random_weights.in_words()}.", markup=False, highlight=False)
    console.print(f"Report: {settings.out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
    print_recovery(fmap, console)


def table_of(fmap: Any) -> Table:
    """The map as a table for the terminal."""
    from vfl.io.layers import layer_list
    from vfl.report.words import headline, interval, percent

    title = Text(f"Function layers of {fmap.model.id} ({fmap.model.num_layers} layers)")
    table = Table(title=title, box=SIMPLE_HEAD)
    for heading in ("function", "layers", "changed (95 %)", "explained", "against", "kept"):
        table.add_column(heading, justify="left" if heading in ("function", "layers") else "right", no_wrap=True)
    for name, entry in fmap.functions.items():
        rate, ends, _ = headline(entry) or (None, None, "")
        layers = layer_list(entry.layers) + (" *" if entry.distributed else "")
        changed = f"{percent(rate)} ({interval(ends)})" if rate is not None and ends else "-"
        explained = percent(entry.explained) if entry.explained is not None else "-"
        against = "control" if entry.tested_against == "control" else f"floor {percent(entry.floor or 0.0)}"
        table.add_row(*map(Text, (name, layers, changed, explained, against, f"{entry.kept}/{entry.pairs}")))
    notes = []
    if any(entry.distributed for entry in fmap.functions.values()):
        notes.append("* distributed: more of the depth than choice.distributed_above")
    if groups := [f"{name} {entry.groups}" for name, entry in fmap.functions.items() if entry.groups is not None]:
        notes.append(f"groups kept, each one sample: {', '.join(groups)}")
    if notes:
        table.caption = "\n".join(notes)
        table.caption_justify = "left"
    return table


def print_recovery(fmap: Any, console: Console) -> None:
    """On the embedded model the truth is known: say how much of it was recovered."""
    from vfl.io.layers import layer_list
    from vfl.loading.beds import EMBEDDED
    from vfl.locate.recovery import read_truth, score, total

    truth = read_truth(EMBEDDED) if fmap.model.id == "embedded" else None
    if truth is None:
        return
    table = Table(title="Planted against recovered (a test bed, so the truth is known)", box=SIMPLE_HEAD)
    for heading in ("function", "planted", "recovered", "precision", "recall"):
        table.add_column(heading, justify="right" if heading in ("precision", "recall") else "left")
    scores = score(fmap, truth)
    for name, recovered in scores.items():
        layers = map(layer_list, (sorted(truth[name]), fmap.functions[name].layers))
        table.add_row(name, *layers, f"{recovered.precision:.2f}", f"{recovered.recall:.2f}")
    console.print(table)
    whole = total(scores)
    console.print(
        f"Recovered against planted: precision {whole.precision:.2f}, recall {whole.recall:.2f} "
        f"over {whole.planted} planted layers",
        markup=False,
        highlight=False,
    )
