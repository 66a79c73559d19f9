"""The options of `vfl select`: how data is read, what is scored, what is chosen, and how they become settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vfl.commands.options import (
    DATA_GROUP,
    RESULTS_GROUP,
    AllowOtherModel,
    BadRows,
    Batch,
    Format,
    Functions,
    Images,
    Layers,
    Map,
    Seed,
    by_function,
    choice,
    given_of,
)

POLICIES = (
    "balanced", "quota", "target", "top", "temperature", "random", "stratified-random", "length", "perplexity", "el2n",
    "vig", "coincide", "ccs", "prism", "semdedup", "no-image-gap",
)  # fmt: skip
CHOICE = "Choice"

Split = Annotated[
    str | None, typer.Option("--split", help="Split of a saved dataset to use.", rich_help_panel=DATA_GROUP)
]
Remote = Annotated[
    bool,
    typer.Option("--allow-remote", help="Fetch images whose names are web addresses.", rich_help_panel=DATA_GROUP),
]
ImageColumn = Annotated[
    str | None,
    typer.Option(
        "--image-column",
        metavar="NAMES",
        help="Column with the images, or several in order.",
        show_default="images or image",
        rich_help_panel=DATA_GROUP,
    ),
]
Ablation = Annotated[
    str | None,
    choice(
        "--ablation",
        values=("hide", "blank", "mean"),
        help="What the text reads in a function's layers: no image, a blank one, or the mean of many.",
        default="hide",
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        help='Such as 20%, 5000, "2M answer tokens", "1B tokens", "3e18 FLOPs".',
        rich_help_panel=CHOICE,
    ),
]
PolicyName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=lambda: list(POLICIES),
        help=f"How the budget is filled: {', '.join(POLICIES)}.",
        show_default="balanced",
        rich_help_panel=CHOICE,
    ),
]
Shares = Annotated[
    str | None,
    typer.Option(
        metavar="SHARES",
        help="Share of each class: equal, proportional, or such as counting=2,ocr=1.",
        show_default="equal",
        rich_help_panel=CHOICE,
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Functions for the policy target: ocr, or with weights ocr=2,counting=1.",
        rich_help_panel=CHOICE,
    ),
]
Include = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Further classes to choose from, such as blind,text.", rich_help_panel=CHOICE),
]
Unsolved = Annotated[
    str | None,
    choice(
        "--unsolved",
        values=("keep", "own", "drop"),
        help="Rows that the model gets wrong: keep in their class, in a class of their own, or drop.",
        default="keep",
        group=CHOICE,
    ),
]
Duplicates = Annotated[
    str | None,
    choice(
        "--duplicates",
        values=("keep", "exact", "near"),
        help="Repeated rows: keep them, leave out exact copies, or near ones too.",
        default="keep",
        group=CHOICE,
    ),
]
Diversity = Annotated[
    int | None,
    typer.Option(
        help="Leave out a row whose image hash differs from a better row's in at most this many of 64 bits.",
        rich_help_panel=CHOICE,
    ),
]
TokenWeights = Annotated[
    float | None,
    typer.Option(
        "--token-weights",
        help="Weigh answer tokens: 1 where hiding the image changes the log-probability by this many nats, else 0.",
        rich_help_panel=CHOICE,
    ),
]
CopyImages = Annotated[
    bool,
    typer.Option("--copy-images", help="Copy the rows' image files into the subset.", rich_help_panel=RESULTS_GROUP),
]
Memory = Annotated[str | None, typer.Option("--memory", help="Memory limit of duckdb.", show_default="1GB")]
Parameters = Annotated[
    str | None,
    typer.Option(
        "--parameters",
        metavar="NUMBER",
        help="Number of parameters of the model, such as 7e9, for a budget in FLOPs.",
        rich_help_panel=CHOICE,
    ),
]
Scores = Annotated[
    Path | None,
    typer.Option("--scores", help="Folder for the scores.", show_default="OUT-scores", rich_help_panel=RESULTS_GROUP),
]
ScoresArgument = Annotated[Path | None, typer.Argument(metavar="SCORES", help="Folder that `vfl select score` wrote.")]


def reading_options(
    images: Images = None,
    format: Format = None,
    split: Split = None,
    allow_remote: Remote = False,
    image_column: ImageColumn = None,
) -> None:
    """How data is read."""


def scoring_options(
    map: Map = None,
    functions: Functions = None,
    layers: Layers = None,
    allow_other_model: AllowOtherModel = False,
    ablation: Ablation = None,
    batch_size: Batch = None,
    on_bad_row: BadRows = None,
) -> None:
    """What is scored, at whose layers."""


def choosing_options(
    budget: Budget = None,
    policy: PolicyName = None,
    shares: Shares = None,
    target: Target = None,
    include: Include = None,
    unsolved: Unsolved = None,
    duplicates: Duplicates = None,
    diversity: Diversity = None,
    parameters: Parameters = None,
    memory: Memory = None,
    seed: Seed = None,
    copy_images: CopyImages = False,
    token_weights: TokenWeights = None,
) -> None:
    """What is chosen."""


def paths(data: list[Path] | None) -> tuple[Path, ...] | None:
    """No path is none given."""
    return tuple(data) if data else None


def scoring(shared: Mapping[str, Any]) -> dict[str, Any]:
    """What to score, as settings."""
    return dict(shared) | given_of({"layers": by_function(shared.get("layers"))})


def choosing(shared: Mapping[str, Any]) -> dict[str, Any]:
    """What to choose, as settings."""
    return dict(shared) | given_of(
        {
            "shares": weights(shared.get("shares")),
            "target": weights(shared.get("target")),
            "parameters": whole(shared.get("parameters"), "--parameters"),
        }
    )


def weights(written: str | None) -> Any:
    """ "ocr=2,counting=1" as numbers by name; anything without "=" stays as it is."""
    from vfl.errors import InputError

    if written is None or "=" not in written:
        return written
    try:
        return {name.strip(): float(number) for name, number in (part.split("=") for part in written.split(","))}
    except ValueError:
        raise InputError(f"{written!r} is no list of weights; write such as ocr=2,counting=1.") from None


def whole(written: str | None, name: str) -> int | None:
    """ "7e9" as a number."""
    from vfl.errors import InputError

    try:
        return None if written is None else int(float(written))
    except (ValueError, OverflowError):
        raise InputError(f"{name} is {written!r}; expected a number, such as 7e9.") from None
