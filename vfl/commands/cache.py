"""`vfl cache`: what is kept for later, and `--clear`.

vfl cache
vfl cache --clear
"""

from typing import Annotated

import typer


def command(
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything that is not in use.")] = False,
) -> None:
    """Show or clear what is kept between runs.

    These are rows prepared for training and pairs for replay, all of which can be made again. They are kept in
    VFL_CACHE, or in the folder vfl where the Hugging Face libraries keep models and data sets (HF_HOME).
    """
    from vfl.io.cache import cache_home, clear_entry, entries
    from vfl.io.sizes import size_text

    kinds: dict[str, list[int]] = {}
    for folder, size in entries().items():
        if not clear or clear_entry(folder):
            kinds.setdefault(folder.parent.name, []).append(size)
    for kind, sizes in kinds.items():
        typer.echo(f"{kind}: {len(sizes):,} of {size_text(sum(sizes))}{' removed' if clear else ''}")
    typer.echo(cache_home())
