"""`vfl merge ADAPTER --out DIR`: a model with the adapter merged into its weights, for whatever serves no adapters.

vfl merge runs/counting/adapter --out runs/counting/merged
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def command(
    adapter: Annotated[Path, typer.Argument(help="Folder with adapter_config.json and adapter_model.safetensors.")],
    out: Annotated[Path, typer.Option(help="Folder of the merged model.")],
    model: Annotated[str | None, typer.Option(help="The base; by default the one that the adapter names.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a model that lies in --out.")] = False,
    dtype: Annotated[str | None, typer.Option(help="Of the merged weights; by default the base's own.")] = None,
    device: Annotated[str | None, typer.Option(help="Such as cuda:0 or cpu.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the base.")] = False,
) -> None:
    """Merge an adapter into its base model, in the base's own dtype, and check the merged logits."""
    from vfl.commands.lora_config import import_peft

    import_peft()
    from vfl.train.adapter.merge import merge

    merged = merge(
        adapter,
        out,
        model=model,
        overwrite=overwrite,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    console = Console()
    console.print(
        f"{merged.folder}: merged in {merged.dtype}. Its logits differ from those of the adapter on its base by "
        f"{merged.difference:.3g} at most ({merged.allowed:.3g} allowed; the adapter changes them by "
        f"{merged.effect:.3g}).",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
