"""`vfl swap MODEL A.png B.png "QUESTION"`: the answer with each layer's vision tokens swapped for another image's.

vfl swap embedded a.png b.png "how many circles"
vfl swap Qwen/Qwen2.5-VL-3B-Instruct three-cups.png four-cups.png "How many cups?" --window 3
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfl.commands.options import (
    MAX_NEW_TOKENS,
    ModelArgument,
    Reading,
    Shared,
    config_options,
    model_options,
    read_settings,
    takes,
)


@takes(model_options, config_options, required=["target", "source", "question"])
def command(
    model: ModelArgument = None,
    target: Annotated[Path | None, typer.Argument(metavar="A.png", help="The image that is asked about.")] = None,
    source: Annotated[
        Path | None,
        typer.Argument(metavar="B.png", help="The image whose vision tokens are swapped in; must have the same size."),
    ] = None,
    question: Annotated[str | None, typer.Argument(metavar="QUESTION", help="The question.")] = None,
    window: Annotated[int | None, typer.Option(help="Layers swapped at a time.", show_default="1")] = None,
    reading: Reading = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", help=MAX_NEW_TOKENS, show_default="16")
    ] = None,
    *,
    shared: Shared,
) -> None:
    """Swap two images' vision tokens, layer by layer.

    Asks a question about A.png while each layer in turn reads B.png instead, and shows which answers change (figure 1
    of arXiv 2509.24791, for your own pictures).
    """
    from vfl.commands.settings import SwapConfig
    from vfl.loading.config import load_from
    from vfl.serve.swapping import swap_layers

    settings = read_settings(
        SwapConfig,
        shared,
        model=model,
        target=target,
        source=source,
        question=question,
        window=window,
        reading=reading,
        max_new_tokens=max_new_tokens,
    )
    rows = swap_layers(
        load_from(settings),
        settings.target,
        settings.source,
        settings.question,
        window=settings.window,
        reading=settings.reading,
        max_new_tokens=settings.max_new_tokens,
    )
    table = Table(title=Text(settings.question))  # a question may hold what rich takes for markup
    table.add_column("layers swapped", justify="right")
    table.add_column("answer")
    table.add_column("")
    for row in rows:
        table.add_row(row.layers, _plain(row.answer), row.mark)
    Console().print(table)


def _plain(text: str) -> str:
    """A model's text without what rich would take for markup."""
    from rich.markup import escape

    return escape(text)
