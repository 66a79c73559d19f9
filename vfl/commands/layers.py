"""`vfl layers MODEL --data D [--map M --functions counting]`: which layers the training rows ask for, by every rule."""

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
    model_options,
    read_settings,
    takes,
)


@takes(model_options)
def command(
    model: ModelArgument = None,
    data: DataOption = None,
    images: Images = None,
    map: Map = None,
    functions: Functions = None,
    count: Annotated[int | None, typer.Option(help="Layers that a rule takes; half of them by default.")] = None,
    sample: Annotated[int, typer.Option(help="Training rows that are read.")] = 64,
    warmup: Annotated[int, typer.Option(help="Steps of a short LoRA run in all layers; 0 leaves this rule out.")] = 0,
    out: Out = None,
    seed: Seed = None,
    allow_other_model: AllowOtherModel = False,
    *,
    shared: Shared,
) -> None:
    """Rank the decoder layers for a training set, and say what kind of shift it looks like.

    With --map and --functions (those that the rows are about) the map stands beside the rankings. With --out
    layers.json and layers.png are written.
    """
    from vfl.commands.lora_config import import_peft
    from vfl.errors import InputError

    import_peft()
    from vfl.io.fields import split
    from vfl.loading.config import ModelConfig, load_from
    from vfl.train.layers.rule_table import choice_table, choices, draw, score_table
    from vfl.train.layers.rules import check_count
    from vfl.train.layers.shift import shift_of
    from vfl.train.survey import map_of, save_survey, survey

    if not data:
        raise InputError("No training rows were given. Name them with --data train.jsonl.")
    names = split(functions or "")
    if names and map is None:
        raise InputError("--functions needs the map that says where they read: give --map map.json.")
    vlm = load_from(read_settings(ModelConfig, shared, model=model))
    if count is not None:
        check_count(count, vlm.num_layers)
    fmap = map_of(vlm, map, allow_other_model=allow_other_model) if map else None
    reading = fmap.layers_of(names) if fmap and names else []
    scored = survey(vlm, data, images=images, rows=sample, warmup=warmup, seed=seed or 0)
    chosen = choices(scored.scores, count or max(1, vlm.num_layers // 2), vlm.num_layers, reading)
    console = Console()
    console.print(score_table(scored.scores, vlm.num_layers, fmap))
    console.print(choice_table(chosen, vlm.num_layers))
    shift = shift_of(scored.scores["gradient"], reading, names) if reading else None
    if shift is not None:
        console.print(shift.sentence, markup=False, highlight=False, soft_wrap=True)
    if out is not None:
        save_survey(out / "layers.json", scored, chosen, shift)
        draw(scored.scores, vlm.num_layers, fmap, out / "layers.png")
        console.print(f"{out / 'layers.json'} and layers.png", markup=False, highlight=False, soft_wrap=True)
