"""`vfl estimate MODEL --gpu h100`: memory, time and disk of the works, from the model's config alone.

vfl estimate Qwen/Qwen2.5-VL-7B-Instruct --gpu a100 --gpus 8
vfl estimate Qwen/Qwen2.5-VL-7B-Instruct --work train --gpu rtx4090 --train-layers 14-27
vfl estimate Qwen/Qwen2.5-VL-7B-Instruct --work train --backward after_image
vfl estimate embedded --work locate --pairs 20
"""

from typing import Annotated

import typer

from vfl.commands.options import (
    PAIRS,
    PAIRS_GROUP,
    Functions,
    MaxPixels,
    ModelArgument,
    Revision,
    Shared,
    TrustRemoteCode,
    choice,
    config_options,
    read_settings,
    takes,
)

CARDS = ("l4", "rtx4090", "a10", "a6000", "l40s", "a100-40gb", "a100", "h100", "h200", "b200")


@takes(config_options)
def command(
    model: ModelArgument = None,
    work: Annotated[
        str | None,
        choice("--work", values=("locate", "score", "train", "measure"), help="What is to be done; default: each."),
    ] = None,
    gpu: Annotated[str | None, choice("--gpu", values=CARDS, help="Card, by its short name.", default="h100")] = None,
    gpus: Annotated[int | None, typer.Option(help="Number of cards of that kind.", show_default="1")] = None,
    spread: Annotated[
        bool, typer.Option("--spread", help="Spread the weights over all cards (device_map auto, ZeRO-3).")
    ] = False,
    quantize: Annotated[
        str | None,
        choice("--quantize", values=("4bit", "8bit"), help="Load the weights in fewer bits (extra vfl[quantized])."),
    ] = None,
    functions: Functions = None,
    pairs: Annotated[
        int | None,
        typer.Option("--pairs", help=PAIRS, show_default="100, to measure 12", rich_help_panel=PAIRS_GROUP),
    ] = None,
    data_rows: Annotated[
        int | None, typer.Option(help="Number of rows to score or to train on.", show_default="10000")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of training, instead of one pass over the rows.")] = None,
    picture: Annotated[
        str | None, typer.Option(metavar="WxH", help="Size of a picture in pixels, such as 1024x768.")
    ] = None,
    vision_tokens: Annotated[int | None, typer.Option(help="Vision tokens of a picture, instead of its size.")] = None,
    answer_tokens: Annotated[
        int | None, typer.Option(help="Length of an answer, in tokens.", show_default="2, of rows 60")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", help="Questions or rows per batch.", show_default="16 to score, 4 to train"),
    ] = None,
    train_layers: Annotated[
        str | None,
        typer.Option(metavar="LAYERS", help="Layers that are trained, such as 10-12,20.", show_default="all"),
    ] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Recompute activations of trained layers in the backward pass.")
    ] = False,
    backward: Annotated[
        str | None,
        typer.Option(help="after_image: two steps of three go back to the image alone.", show_default="whole"),
    ] = None,
    max_pixels: MaxPixels = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    *,
    shared: Shared,
) -> None:
    """Estimate memory, time and disk of a run.

    Reads a model's config and no weights. All numbers are estimates from one cost model: operations are exact to a few
    per cent, seconds follow from a card's data sheet and an assumed utilisation.
    """
    from rich.console import Console

    from vfl.estimate.config import EstimateConfig
    from vfl.estimate.run import estimate, read_shape
    from vfl.estimate.tables import print_estimates

    settings = read_settings(
        EstimateConfig,
        shared,
        model=model,
        work=work,
        gpu=gpu,
        gpus=gpus,
        spread=spread,
        quantize=quantize,
        functions=functions,
        pairs=pairs,
        data_rows=data_rows,
        steps=steps,
        picture=picture,
        vision_tokens=vision_tokens,
        answer_tokens=answer_tokens,
        batch_size=batch_size,
        train_layers=train_layers,
        checkpointing=checkpointing,
        backward=backward,
        max_pixels=max_pixels,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    shape = read_shape(settings)
    print_estimates(settings, shape, estimate(settings, shape), Console())
