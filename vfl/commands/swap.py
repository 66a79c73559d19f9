"""`vfl swap MODEL A.png B.png "QUESTION"`: the answer with each layer's vision tokens swapped for another image's."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def command(
    model: Annotated[str, typer.Argument(help="Folder or hub id; 'embedded' for the test model.")],
    target: Annotated[Path, typer.Argument(help="The image that is asked about.")],
    source: Annotated[Path, typer.Argument(help="The image whose vision tokens are swapped in; of equal size.")],
    question: Annotated[str, typer.Argument(help="The question.")],
    window: Annotated[int, typer.Option(min=1, help="Layers swapped at a time.")] = 1,
    reading: Annotated[str, typer.Option(help="Who sees the swap: text, answer, all.")] = "text",
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 16,
    attention: Annotated[str, typer.Option(help="sdpa or eager.")] = "sdpa",
    dtype: Annotated[str, typer.Option(help="auto, float32, float16, bfloat16, float64.")] = "auto",
    device: Annotated[str | None, typer.Option(help="Such as cuda:0 or cpu.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
) -> None:
    """Ask one question with each layer's vision tokens swapped (arXiv 2509.24791, figure 1, for your pictures)."""
    from vfl.engine.image_cache import prefill
    from vfl.engine.plan import Plan
    from vfl.engine.sweep import READINGS, sweep
    from vfl.errors import InputError
    from vfl.loading.load import load

    if reading not in READINGS:
        raise InputError(f"--reading {reading} is unknown; expected one of {', '.join(READINGS)}.")
    name = None if model == "embedded" else model
    vlm = load(name, dtype=dtype, device=device, attention=attention, trust_remote_code=trust_remote_code)
    if window > vlm.num_layers:
        raise InputError(f"--window {window} is wider than the model, which has {vlm.num_layers} layers.")
    asked, other = vlm.ask(question, target), vlm.ask(question, source)
    image_cache = prefill(vlm, other)
    starts = range(vlm.num_layers - window + 1)
    plans = [Plan.own(), *(Plan.window(first, window, image_cache) for first in starts)]
    answers = sweep(vlm, asked, plans, max_new_tokens=max_new_tokens, reading=reading).texts
    alone = sweep(vlm, other, [Plan.own()], max_new_tokens=max_new_tokens, own=image_cache).texts[0]
    table = Table(title=question)
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
