"""`vfl merge ADAPTER --out DIR`: a model with the adapter merged into its weights, for whatever serves no adapters.

vfl merge runs/counting/adapter --out runs/counting/merged
vfl merge runs/counting/adapter --model Qwen/Qwen2.5-VL-3B-Instruct --dtype bfloat16 --out runs/counting/merged
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vfl.commands.options import (
    MODEL,
    MODEL_GROUP,
    Device,
    Dtype,
    MaxPixels,
    MinPixels,
    Out,
    Overwrite,
    Shared,
    TrustRemoteCode,
    config_options,
    read_settings,
    takes,
)


@takes(config_options, required=["adapter", "out"])
def command(
    adapter: Annotated[
        Path | None,
        typer.Argument(metavar="ADAPTER", help="Folder with adapter_config.json and adapter_model.safetensors."),
    ] = None,
    out: Out = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help=MODEL, show_default="the base that the adapter names", rich_help_panel=MODEL_GROUP
        ),
    ] = None,
    overwrite: Overwrite = False,
    dtype: Dtype = None,
    device: Device = None,
    min_pixels: MinPixels = None,
    max_pixels: MaxPixels = None,
    trust_remote_code: TrustRemoteCode = False,
    *,
    shared: Shared,
) -> None:
    """Merge an adapter into its base model.

    The weights keep the base's own dtype unless --dtype is given. The merged model is read back and its logits are
    checked.
    """
    from vfl.commands.lora_config import import_peft

    import_peft()
    from vfl.train.adapter.merge import MergeConfig, merge

    settings = read_settings(
        MergeConfig,
        shared,
        adapter=adapter,
        out=out,
        model=model,
        dtype=dtype,
        device=device,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        trust_remote_code=trust_remote_code,
    )
    merged = merge(settings, overwrite=overwrite)
    console = Console()
    console.print(
        f"{merged.folder}: merged in {merged.dtype}. Its logits differ from those of the adapter on its base by "
        f"{merged.difference:.3g} at most ({merged.allowed:.3g} allowed; the adapter changes them by "
        f"{merged.effect:.3g}).",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
