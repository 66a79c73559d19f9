"""`vfl layers MODEL --data D [--map M --functions counting]`: which layers the training rows ask for, by every rule."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def command(
    model: Annotated[str | None, typer.Argument(help="Folder or hub id; the embedded test model if left out.")] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="Training rows, in any format; repeat for more files.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the images that rows name.")] = None,
    map: Annotated[Path | None, typer.Option(help="map.json of `vfl locate`: shows where functions read.")] = None,
    functions: Annotated[
        str | None, typer.Option(help="Functions that the rows are about, such as counting,ocr.")
    ] = None,
    count: Annotated[int | None, typer.Option(help="Layers that a rule takes; half of them by default.")] = None,
    rows: Annotated[int, typer.Option(help="Rows that are read.")] = 64,
    warmup: Annotated[int, typer.Option(help="Steps of a short LoRA run in all layers; 0 leaves this rule out.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for layers.json and layers.png.")] = None,
    seed: Annotated[int, typer.Option(help="Draws the rows.")] = 0,
    dtype: Annotated[str, typer.Option(help="auto, float32, float16, bfloat16, float64.")] = "auto",
    device: Annotated[str | None, typer.Option(help="Such as cuda:0 or cpu.")] = None,
    quantize: Annotated[str | None, typer.Option(help="4bit or 8bit.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
    allow_other_model: Annotated[bool, typer.Option(help="Take a map of the model this one was tuned from.")] = False,
) -> None:
    """Rank the decoder layers for a training set, and say what kind of shift it looks like."""
    from vfl.commands.lora_config import import_peft
    from vfl.errors import InputError

    import_peft()
    from vfl.loading import load
    from vfl.train.layer_table import choice_table, choices, draw, score_table
    from vfl.train.shift import shift_of
    from vfl.train.survey import map_of, save_survey, survey

    if not data:
        raise InputError("No training rows were given. Name them with --data train.jsonl.")
    names = functions.split(",") if functions else []
    if names and map is None:
        raise InputError("--functions needs the map that says where they read: give --map map.json.")
    vlm = load(
        model, dtype=dtype, device=device, quantize=quantize, revision=revision, trust_remote_code=trust_remote_code
    )  # type: ignore[arg-type]
    fmap = map_of(vlm, map, allow_other_model=allow_other_model) if map else None
    reading = fmap.layers_of(names) if fmap and names else []
    scored = survey(vlm, data, images=images, rows=rows, warmup=warmup, seed=seed)
    found = choices(scored.scores, count or max(1, vlm.num_layers // 2), vlm.num_layers, reading)
    console = Console()
    console.print(score_table(scored.scores, vlm.num_layers, fmap))
    console.print(choice_table(found, vlm.num_layers))
    shift = shift_of(scored.scores["gradient"], reading, names) if reading else None
    if shift is not None:
        console.print(shift.sentence, markup=False, highlight=False, soft_wrap=True)
    if out is not None:
        save_survey(out / "layers.json", scored, found, shift)
        draw(scored.scores, vlm.num_layers, fmap, out / "layers.png")
        console.print(f"{out / 'layers.json'} and layers.png", markup=False, highlight=False, soft_wrap=True)
