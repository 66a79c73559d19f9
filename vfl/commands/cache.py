"""`vfl cache`: what is kept for later, and `--clear`.

vfl cache
vfl cache --clear
"""

from typing import Annotated

import typer


def command(
    clear: Annotated[bool, typer.Option("--clear", help="Remove what can be made again and is not in use.")] = False,
    hub: Annotated[bool, typer.Option("--hub", help="With --clear: remove what came from the hub, too.")] = False,
) -> None:
    """Show or clear what is kept between runs.

    These are rows prepared for training and pairs for replay, all of which can be made again, and what was fetched from
    the hub by an address (hf://), which runs read as long as they go on. They are kept in VFL_CACHE, or in the folder
    vfl where the Hugging Face libraries keep models and data sets (HF_HOME).
    """
    from vfl.errors import InputError
    from vfl.io.cache import cache_home, clear_entry, entries
    from vfl.io.hub import KIND
    from vfl.io.sizes import size_text

    kinds: dict[str, list[int]] = {}
    if hub and not clear:
        raise InputError("--hub says what --clear removes: give both, or none.")
    for folder, size in entries().items():
        if clear and folder.parent.name == KIND and not hub:
            continue
        if not clear or clear_entry(folder):
            kinds.setdefault(folder.parent.name, []).append(size)
    for kind, sizes in kinds.items():
        typer.echo(f"{kind}: {len(sizes):,} of {size_text(sum(sizes))}{' removed' if clear else ''}")
    typer.echo(cache_home())
