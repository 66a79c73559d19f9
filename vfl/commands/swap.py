"""`vfl swap MODEL A.png B.png "QUESTION"`: the answer with each layer's vision tokens swapped for another image's."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfl.commands.options import MODEL, Reading, Shared, model_options, read_settings, takes


@takes(model_options)
def command(
    model: Annotated[str, typer.Argument(help=MODEL)],
    target: Annotated[Path, typer.Argument(help="The image that is asked about.")],
    source: Annotated[Path, typer.Argument(help="The image whose vision tokens are swapped in; of equal size.")],
    question: Annotated[str, typer.Argument(help="The question.")],
    window: Annotated[int, typer.Option(min=1, help="Layers swapped at a time.")] = 1,
    reading: Reading = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 16,
    *,
    shared: Shared,
) -> None:
    """Ask one question with each layer's vision tokens swapped (arXiv 2509.24791, figure 1, for your pictures)."""
    from vfl.engine.image_cache import prefill
    from vfl.engine.plan import Plan
    from vfl.engine.sweep import READINGS, sweep
    from vfl.errors import InputError
    from vfl.loading.config import ModelConfig, load_from

    reading = reading or "text"
    if reading not in READINGS:
        raise InputError(f"--reading {reading} is unknown; expected one of {', '.join(READINGS)}.")
    vlm = load_from(read_settings(ModelConfig, shared, model=model))
    if window > vlm.num_layers:
        raise InputError(f"--window {window} is wider than the model, which has {vlm.num_layers} layers.")
    asked, other = vlm.ask(question, target), vlm.ask(question, source)
    image_cache = prefill(vlm, other)
    starts = range(vlm.num_layers - window + 1)
    plans = [Plan.own(), *(Plan.window(first, window, image_cache) for first in starts)]
    answers = sweep(vlm, asked, plans, max_new_tokens=max_new_tokens, reading=reading).texts
    alone = sweep(vlm, other, [Plan.own()], max_new_tokens=max_new_tokens, own=image_cache).texts[0]
    table = Table(title=Text(question))  # a question may hold what rich takes for markup
    table.add_column("layers swapped", justify="right")
    table.add_column("answer")
    table.add_column("")
    table.add_row("none", _plain(answers[0]), "target")
    for first, answer in zip(starts, answers[1:], strict=True):
        mark = "" if answer == answers[0] else "= source" if answer == alone else "changed"
        table.add_row(str(first) if window == 1 else f"{first}-{first + window - 1}", _plain(answer), mark)
    table.add_row("all", _plain(alone), "source")
    Console().print(table)


def _plain(text: str) -> str:
    """A model's text without what rich would take for markup."""
    from rich.markup import escape

    return escape(text)
