"""`vfl layers MODEL --data D [--map M --functions counting]`: which layers the training rows ask for, by every rule.

vfl layers Qwen/Qwen2.5-VL-3B-Instruct --data train.jsonl --images images
vfl layers Qwen/Qwen2.5-VL-3B-Instruct --data train.jsonl --map runs/map --functions counting --out runs/layers
"""

from typing import Annotated

import typer
from rich.console import Console

from vfl.commands.options import (
    AllowOtherModel,
    DataOption,
    Functions,
    Images,
    Map,
    ModelArgument,
    Out,
    Seed,
    Shared,
    config_options,
    model_options,
    read_settings,
    takes,
)


@takes(model_options, config_options, required=["data"])
def command(
    model: ModelArgument = None,
    data: DataOption = None,
    images: Images = None,
    map: Map = None,
    functions: Functions = None,
    count: Annotated[
        int | None, typer.Option(help="Number of layers that a rule takes.", show_default="half of them")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(help="Number of training rows that are read.", show_default="64")
    ] = None,
    warmup: Annotated[
        int | None,
        typer.Option(
            help="Steps of a short LoRA run in all layers for the warmup rule; 0 leaves it out.", show_default="0"
        ),
    ] = None,
    out: Out = None,
    seed: Seed = None,
    allow_other_model: AllowOtherModel = False,
    *,
    shared: Shared,
) -> None:
    """Rank a model's layers for a training set.

    Applies every rule for choosing layers to the rows, and names the kind of shift that they look like. With --map and
    --functions (those that the rows are about), the map stands beside the rankings. --out writes layers.json and
    layers.png.
    """
    from vfl.commands.lora_config import import_peft
    from vfl.errors import InputError

    import_peft()
    from vfl.commands.settings import LayersConfig
    from vfl.loading.config import load_from, map_of
    from vfl.train.layers.rule_table import choice_table, choices, draw, score_table
    from vfl.train.layers.rules import check_count
    from vfl.train.layers.shift import shift_of
    from vfl.train.survey import save_survey, survey

    settings = read_settings(
        LayersConfig,
        shared,
        model=model,
        data=data or None,
        images=images,
        map=map,
        functions=functions,
        count=count,
        sample=sample,
        warmup=warmup,
        out=out,
        seed=seed,
        allow_other_model=allow_other_model,
    )
    if not settings.data:
        raise InputError("No training rows were given. Name them with --data train.jsonl.")
    names, folder = list(settings.functions), settings.out
    if names and settings.map is None:
        raise InputError("--functions needs the map that says where they read: give --map map.json.")
    vlm = load_from(settings)
    if settings.count is not None:
        check_count(settings.count, vlm.num_layers)
    fmap = map_of(vlm, settings.map, allow_other_model=settings.allow_other_model) if settings.map else None
    reading = fmap.layers_of(names) if fmap and names else []
    scored = survey(
        vlm,
        list(settings.data),
        images=settings.images,
        rows=settings.sample,
        warmup=settings.warmup,
        seed=settings.seed,
    )
    chosen = choices(scored.scores, settings.count or max(1, vlm.num_layers // 2), vlm.num_layers, reading)
    console = Console()
    console.print(score_table(scored.scores, vlm.num_layers, fmap))
    console.print(choice_table(chosen, vlm.num_layers))
    shift = shift_of(scored.scores["gradient"], reading, names) if reading else None
    if shift is not None:
        console.print(shift.sentence, markup=False, highlight=False, soft_wrap=True)
    if folder is not None:
        save_survey(folder / "layers.json", scored, chosen, shift)
        draw(scored.scores, vlm.num_layers, fmap, folder / "layers.png")
        console.print(f"{folder / 'layers.json'} and layers.png", markup=False, highlight=False, soft_wrap=True)
