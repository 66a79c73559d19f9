"""`vfl merge ADAPTER --out DIR`: a model with the adapter merged into its weights, for whatever serves no adapters.

vfl merge runs/counting/adapter --out runs/counting/merged
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vfl.commands.options import MODEL, OUT, Device, Dtype, Overwrite, TrustRemoteCode


def command(
    adapter: Annotated[Path, typer.Argument(help="Folder with adapter_config.json and adapter_model.safetensors.")],
    out: Annotated[Path, typer.Option("--out", help=OUT)],
    model: Annotated[str | None, typer.Option("--model", help=MODEL, show_default="the adapter's own base")] = None,
    overwrite: Overwrite = False,
    dtype: Dtype = None,
    device: Device = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Merge an adapter into its base model, in the base's own dtype unless --dtype is given, and check its logits."""
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
