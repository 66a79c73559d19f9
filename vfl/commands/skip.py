"""`vfl skip MODEL --entry 4 --exit 24`: answer with vision tokens absent from the other layers; what that saves.

vfl skip embedded --entry 2 --exit 8
vfl skip Qwen/Qwen2.5-VL-3B-Instruct --map runs/map --keep counting --image cups.png --question "How many cups?"
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from vfl.commands.options import Map, ModelArgument, Shared, config_options, model_options, read_settings, takes


@takes(model_options, config_options)
def command(
    model: ModelArgument = None,
    entry: Annotated[int | None, typer.Option(help="First layer with vision tokens.", show_default="0")] = None,
    exit: Annotated[int | None, typer.Option(help="First layer without them again.", show_default="the last")] = None,
    map: Map = None,
    keep: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="With --map: functions whose layers see the image, such as counting,ocr."),
    ] = None,
    image: Annotated[Path | None, typer.Option(help="Picture to ask about.", show_default="a drawn one")] = None,
    question: Annotated[str | None, typer.Option(help="Question to ask.")] = None,
    tokens: Annotated[
        int | None, typer.Option(help="Length of each timed answer, in tokens.", show_default="32")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Number of timed answers with skipping, and without.", show_default="3")
    ] = None,
    *,
    shared: Shared,
) -> None:
    """Answer with vision tokens in some layers only.

    Compares answers, speed and cache memory with the plain model. Either --entry and --exit, or --map and --keep, say
    which layers have vision tokens. A late entry and an early exit save work, the more the more tokens an image has.
    Layers hidden between them, as --map does, save cache alone, and cost a little time a token. What both come to on
    your model is printed.
    """
    from vfl.commands.settings import SkipConfig
    from vfl.engine.skip.running import generate
    from vfl.engine.skip.skip import Skip, skip_by_map
    from vfl.engine.skip.speed import compare_speed
    from vfl.errors import InputError
    from vfl.functionmap import FunctionMap
    from vfl.loading.beds import bed_folders
    from vfl.loading.config import identify, load_from

    settings = read_settings(
        SkipConfig,
        shared,
        model=model,
        entry=entry,
        exit=exit,
        map=map,
        keep=keep,
        image=image,
        question=question,
        tokens=tokens,
        repeats=repeats,
    )
    by_place = settings.entry is not None or settings.exit is not None
    if (settings.map is None) == bool(settings.keep):
        raise InputError("--map and --keep belong together: whose layers to hide, and for which functions not to.")
    if (settings.map is not None) == by_place:
        raise InputError("Say what to skip: either --entry and --exit, or --map and --keep.")
    fmap = None if settings.map is None else FunctionMap.load(settings.map)
    vlm = load_from(settings)
    if fmap is not None:
        fmap = fmap.check_model(**dict(identify(vlm)))
        skip = skip_by_map(fmap, settings.keep)
    else:
        end = vlm.num_layers if settings.exit is None else settings.exit
        skip = Skip(vlm.num_layers, settings.entry or 0, end)
    shown, asked = made_prompt(settings.model in bed_folders())
    encoded = vlm.ask(settings.question or asked, settings.image or shown)
    speeds = compare_speed(vlm, encoded, skip, tokens=settings.tokens, repeats=settings.repeats)
    table = Table(title=f"{encoded.num_vision_tokens} vision tokens in a prompt of {encoded.length}")
    for heading in ("", "prompt s", "answer s", "tokens/s", "cache MiB", "answer"):
        table.add_column(heading, justify="left" if heading in ("", "answer") else "right")
    for label, way, speed in (("plain", None, speeds[0]), ("skipping", skip, speeds[1])):
        ids, _ = generate(vlm, encoded, way, max_new_tokens=settings.tokens)
        numbers = (speed.prompt_seconds, speed.seconds, speed.tokens_per_second, speed.cache_bytes / 2**20)
        text = vlm.tokenizer.decode(ids, skip_special_tokens=True).strip()
        table.add_row(label, *(f"{number:.3g}" for number in numbers), _plain(text))
    console = Console()
    console.print(f"Skipping: {skip.words}.", markup=False, highlight=False, soft_wrap=True)
    console.print(table)
    if skip.nothing:
        console.print("Nothing is skipped: both are the plain model.", highlight=False, soft_wrap=True)
    share = speeds[1].cache_bytes / speeds[0].cache_bytes
    console.print(
        f"{speeds[0].seconds / speeds[1].seconds:.2f} times as fast: the prompt "
        f"{speeds[0].prompt_seconds / speeds[1].prompt_seconds:.2f} times, a token after it "
        f"{_times(speeds[0].token_seconds, speeds[1].token_seconds)}; {100 * share:.0f} % of the cache. Medians of "
        f"{settings.repeats} answers of {settings.tokens} tokens.",
        highlight=False,
        soft_wrap=True,
    )


def made_prompt(small: bool) -> tuple[Any, str]:
    """A picture and a question of the generated probes, in the test beds' style for those."""
    from vfl.probes.make import draw_one
    from vfl.probes.style import MICRO_STYLE, Style

    drawn = draw_one("counting", 0, 0, MICRO_STYLE if small else Style())
    return drawn.image, drawn.question


def _times(plain: float, skipping: float) -> str:
    """How many times as fast, where both times stand out from the clock's noise."""
    return f"{plain / skipping:.2f} times" if min(plain, skipping) > 0 else "too short to time (give more --tokens)"


def _plain(text: str) -> str:
    """A model's text without what rich would take for markup."""
    from rich.markup import escape

    return escape(text)
