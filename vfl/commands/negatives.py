"""`vfl negatives DATA --model M --map M --functions F --out D`: preference rows from a model that is partly blind.

vfl negatives train.jsonl --model Qwen/Qwen2.5-VL-3B-Instruct --map runs/map --functions counting --out runs/negatives
vfl negatives train.jsonl --model Qwen/Qwen2.5-VL-3B-Instruct --blind 18-22 --only-answered --out runs/negatives
"""

from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from vfl.commands.options import (
    AllowOtherModel,
    BadRows,
    Batch,
    DataArgument,
    Format,
    Functions,
    Images,
    Map,
    Match,
    MaxNewTokens,
    ModelOption,
    Out,
    Overwrite,
    Resume,
    Seed,
    Shared,
    config_options,
    model_options,
    read_settings,
    takes,
)


@takes(model_options, config_options, required=["data", "out"])
def command(
    data: DataArgument = None,
    model: ModelOption = None,
    map: Map = None,
    functions: Functions = None,
    blind: Annotated[
        str | None,
        typer.Option(help="Layers that don't see the image, instead of a map: 10-12,20, all, random:3, or none."),
    ] = None,
    out: Out = None,
    images: Images = None,
    format: Format = None,
    match: Match = None,
    only_answered: Annotated[
        bool,
        typer.Option("--only-answered", help="Keep only rows that the model answers correctly when it sees the image."),
    ] = False,
    first: Annotated[int | None, typer.Option(help="Take only this many rows, from the beginning.")] = None,
    max_new_tokens: MaxNewTokens = None,
    batch_size: Batch = None,
    seed: Seed = None,
    on_bad_row: BadRows = None,
    allow_other_model: AllowOtherModel = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
    *,
    shared: Shared,
) -> None:
    """Make preference rows from a partly blind model.

    The model answers training rows with the image hidden in the layers where a function reads it, and wrong answers
    become the rejected ones; each row's own answer is the chosen one. A recipe with `method: dpo` takes the folder
    --out as its data.
    """
    from vfl.io.layers import layer_list
    from vfl.negatives.asking import WHY, Outcome
    from vfl.negatives.config import NegativesConfig
    from vfl.negatives.run import run

    settings = read_settings(
        NegativesConfig,
        shared,
        data=data or None,
        model=model,
        map=map,
        functions=functions,
        blind=blind,
        out=out,
        images=images,
        format=format,
        match=match,
        only_answered=only_answered or None,
        first=first,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        seed=seed,
        on_bad_row=on_bad_row,
        allow_other_model=allow_other_model or None,
    )
    result = run(settings, overwrite=overwrite, resume=resume)
    table = Table(title=f"Blind at layers {layer_list(result.layers)}: {result.rows} rows", box=SIMPLE_HEAD)
    table.add_column("rows", justify="right")
    table.add_column("outcome", no_wrap=True)
    table.add_column("why")
    table.add_row(str(result.kept), "kept", WHY["kept"])
    name: Outcome
    for name, count in result.left_out.items():
        table.add_row(str(count), name, WHY[name])
    console = Console()
    console.print(table)
    console.print(f"Preference rows: {settings.out}", markup=False, highlight=False, soft_wrap=True)
