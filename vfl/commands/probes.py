"""`vfl probes make|check|show`: suites of pairs, generated or your own.

vfl probes make my-pairs --functions counting,ocr --pairs 100 --seed 0
vfl probes make my-pairs --config suite.yaml
vfl probes make my-pairs --coco annotations.json images/
vfl probes check my-pairs
vfl probes show my-pairs --out sheet.png
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vfl.commands.help import Command, examples
from vfl.commands.options import (
    OUT,
    PAIRS_GROUP,
    RESULTS_GROUP,
    Functions,
    Group,
    Pairs,
    Seed,
    Shared,
    Size,
    choice,
    config_options,
    read_settings,
    takes,
)

if TYPE_CHECKING:
    from vfl.probes.config import SuiteConfig
    from vfl.probes.pair import Pair
    from vfl.probes.style import Style

app = typer.Typer(help="Make, check and show suites of pairs.", no_args_is_help=True)


@app.command("make", cls=Command, epilog=examples(__doc__, "probes make"))
@takes(config_options, required=["out"])
def make_command(
    out: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Folder for the suite; must not hold one yet.")
    ] = None,
    functions: Functions = None,
    pairs: Pairs = None,
    group: Group = None,
    seed: Seed = None,
    style: Annotated[
        str | None,
        choice(
            "--style",
            values=("standard", "micro"),
            help="standard is for real models, micro for the embedded one.",
            default="standard",
            group=PAIRS_GROUP,
        ),
    ] = None,
    size: Size = None,
    objects: Annotated[
        Path | None,
        typer.Option(
            help="Folder of your own pictures, one per class, instead of the bundled ones.",
            rich_help_panel=PAIRS_GROUP,
        ),
    ] = None,
    coco: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="JSON DIR",
            help="COCO annotations and image folder, for pairs of photographs instead of drawings.",
            rich_help_panel=PAIRS_GROUP,
        ),
    ] = None,
    *,
    shared: Shared,
) -> None:
    """Write a suite of pairs.

    Writes DIR/probes.jsonl and its images. By default, the paper's four functions are drawn: recognition, counting,
    grounding and ocr. There are others; a wrong name lists them.
    """
    from vfl.io.run_folder import RunFolder
    from vfl.probes.config import SuiteConfig
    from vfl.probes.pair import PROBES_FILE

    settings = read_settings(
        SuiteConfig,
        shared,
        out=out,
        functions=functions,
        pairs=pairs,
        group=group,
        seed=seed,
        style=style,
        size=size,
        objects=objects,
        coco=coco,
    )
    # Two processes in one folder would mix their images.
    with RunFolder(settings.out, PROBES_FILE, another="another folder").alone():
        made = _made(settings)
    _describe(settings.out, made)


def _made(settings: "SuiteConfig") -> "list[Pair]":
    """The suite that was asked for, written."""
    from vfl.errors import InputError
    from vfl.probes.coco import FUNCTIONS as COCO_FUNCTIONS
    from vfl.probes.coco import coco_pairs
    from vfl.probes.functions import PAPER_FUNCTIONS
    from vfl.probes.make import make
    from vfl.probes.pair import write_suite

    names, count = settings.functions, settings.pairs
    if settings.coco is not None:
        if settings.size is not None or settings.objects is not None or settings.style != "standard" or settings.group:
            raise InputError("--coco takes photographs as they are: leave out --style, --size, --group and --objects")
        drawn, left_out = coco_pairs(*settings.coco, functions=names or COCO_FUNCTIONS, pairs=count, seed=settings.seed)
        made = write_suite(settings.out, drawn)
        for function, reasons in left_out.items():
            listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "none"
            typer.echo(f"{function}: annotations left out: {listed}")
        return made
    style_used = _style(settings.style, settings.size, settings.objects)
    return make(settings.out, names or PAPER_FUNCTIONS, count, settings.seed, style_used, settings.group)


@app.command("check", cls=Command, epilog=examples(__doc__, "probes check"))
def check_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with probes.jsonl.")],
) -> None:
    """Check a suite, line by line.

    Every line that can't be used is named, with its field and what was expected, and ends the command with exit code 2.
    Notes on a suite that can be used say what would make it tell more.
    """
    from vfl.probes.check import check_suite

    pairs, notes = check_suite(folder)
    _describe(folder, pairs)
    for note in notes:
        typer.echo(f"Note: {note}")


@app.command("show", cls=Command, epilog=examples(__doc__, "probes show"))
def show_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with probes.jsonl.")],
    out: Annotated[Path, typer.Option("--out", help=OUT, rich_help_panel=RESULTS_GROUP)] = Path("sheet.png"),
    rows: Annotated[int, typer.Option(min=1, help="Number of pairs to show, taken from each function in turn.")] = 40,
) -> None:
    """Draw a contact sheet of a suite.

    The sheet is a PNG with pairs of each function. The suite is checked first.
    """
    from vfl.io.atomic import replacing
    from vfl.probes.pair import read_suite
    from vfl.probes.sheet import contact_sheet

    pairs = read_suite(folder)
    with replacing(out) as temporary:
        contact_sheet(pairs, rows).save(temporary, format="PNG")
    _describe(folder, pairs)
    typer.echo(f"wrote {out}")


def _style(name: str, size: int | None, objects: Path | None) -> "Style":
    from vfl.errors import InputError
    from vfl.probes.style import STYLES

    if name not in STYLES:
        raise InputError(f"there is no style {name!r}; choose from: {', '.join(STYLES)}")
    style = STYLES[name] if size is None else STYLES[name].resized(size)
    if name == "micro" and objects is not None:
        raise InputError(
            "style micro draws the objects that the embedded model was trained on: leave out --objects, or use"
            " --style standard"
        )
    return style if objects is None else replace(style, object_folder=objects)


def _describe(folder: Path, pairs: list["Pair"]) -> None:
    from vfl.probes.pair import suite_sha256

    counts = Counter(pair.function for pair in pairs)
    listed = ", ".join(f"{count} {function}" for function, count in counts.items())
    typer.echo(
        f"{folder}: {len(pairs)} pair{'s' if len(pairs) != 1 else ''} ({listed}), sha256 {suite_sha256(folder)[:12]}"
    )
