"""`vfl select score|filter|report|run`: cut a data set to a budget by what each row needs of the image.

vfl select score llava.json --images train2017 --model M --map map.json --out scores
vfl select filter scores --data llava.json --budget 20% --out subset
vfl select report scores --subset subset --out report.html
vfl select run llava.json --images train2017 --model M --map map.json --budget 20% --out subset
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

app = typer.Typer(no_args_is_help=True, help="Cut a data set to a budget by what each row needs of its image.")

Data = Annotated[list[Path] | None, typer.Argument(help="Files, folders of shards or saved datasets.")]
Images = Annotated[Path | None, typer.Option(help="Folder of the images that rows name (the data's own folder).")]
Format = Annotated[str | None, typer.Option(help="Kind of the rows, where it isn't clear.")]
Split = Annotated[str | None, typer.Option(help="Split of a saved dataset.")]
Remote = Annotated[bool, typer.Option("--allow-remote", help="Fetch images whose names are addresses.")]
Model = Annotated[str | None, typer.Option(help="Folder or hub id; the embedded test model if left out.")]
Map = Annotated[Path | None, typer.Option(help="map.json of `vfl locate`: functions and their layers.")]
Functions = Annotated[str | None, typer.Option(help="Of the map, with commas; default: all that have layers.")]
Ablation = Annotated[str | None, typer.Option(help="What text reads there: hide (default), blank or mean.")]
Batch = Annotated[int | None, typer.Option(help="Rows scored together (16).")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, float16, bfloat16, float64.")]
Device = Annotated[str | None, typer.Option(help="Such as cuda:0 or cpu.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first bad row.")]
Budget = Annotated[str | None, typer.Option(help='Such as 20%, 5000, "2M answer tokens", "1B tokens", "3e18 FLOPs".')]
PolicyName = Annotated[
    str | None,
    typer.Option(
        help="balanced (default), quota, target, top, temperature, random, stratified-random, length, perplexity, el2n,"
        " no-image-gap."
    ),
]
Shares = Annotated[str | None, typer.Option(help="equal (default), proportional, or such as counting=2,ocr=1.")]
Target = Annotated[str | None, typer.Option(help="For the policy target: ocr, or weights: ocr=2,counting=1.")]
Include = Annotated[str | None, typer.Option(help="Classes that take part as well, such as blind,text.")]
Unsolved = Annotated[str | None, typer.Option(help="Rows wrong before: keep (default) in their class, own, drop.")]
Duplicates = Annotated[str | None, typer.Option(help="Leave out repeated rows: keep (default: don't), exact, near.")]
Diversity = Annotated[
    int | None, typer.Option(help="Leave out a row whose image is within so many of 64 hash bits of a better one's.")
]
Seed = Annotated[int | None, typer.Option(help="Of what is drawn (0).")]
CopyImages = Annotated[bool, typer.Option("--copy-images", help="Put the rows' image files into the subset.")]
Config = Annotated[Path | None, typer.Option(help="YAML with settings; flags override it.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting; repeatable.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another run's results in --out.")]


@app.command("score")
def score_command(
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the scores; a run that was stopped goes on.")] = None,
    images: Images = None,
    format: Format = None,
    split: Split = None,
    allow_remote: Remote = False,
    model: Model = None,
    map: Map = None,
    functions: Functions = None,
    ablation: Ablation = None,
    batch: Batch = None,
    dtype: Dtype = None,
    device: Device = None,
    strict: Strict = False,
    config: Config = None,
    sets: Sets = None,
    overwrite: Overwrite = False,
) -> None:
    """Score each row once per function: what its answer loses when the function's layers don't see the image."""
    from vfl.config import validated

    given = {
        **reading_flags(data, images, format, split, allow_remote),
        **model_flags(model, map, functions, ablation, batch, dtype, device, strict),
        "out": out,
    }
    with extras():
        from vfl.select.settings import ScoreConfig
    settings = validated(ScoreConfig, with_sets(config, given, sets), source=str(config or "settings"))
    finish_scores(score_with(settings, overwrite=overwrite))


@app.command("filter")
def filter_command(
    scores: Annotated[Path | None, typer.Argument(help="Folder that `vfl select score` wrote.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the subset.")] = None,
    budget: Budget = None,
    data: Annotated[list[Path] | None, typer.Option(help="The data that was scored (where it was then).")] = None,
    images: Images = None,
    format: Format = None,
    split: Split = None,
    allow_remote: Remote = False,
    policy: PolicyName = None,
    shares: Shares = None,
    target: Target = None,
    include: Include = None,
    unsolved: Unsolved = None,
    duplicates: Duplicates = None,
    diversity: Diversity = None,
    seed: Seed = None,
    copy_images: CopyImages = False,
    memory: Annotated[str | None, typer.Option(help="Most memory of duckdb (1GB).")] = None,
    parameters: Annotated[str | None, typer.Option(help="Of the model, for a budget in FLOPs, such as 7e9.")] = None,
    config: Config = None,
    sets: Sets = None,
    overwrite: Overwrite = False,
) -> None:
    """Choose rows to a budget from stored scores, and write them in the format that they came in. Needs no model."""
    from vfl.config import validated

    given = {
        **reading_flags(data, images, format, split, allow_remote),
        **choice_flags(budget, policy, shares, target, include, unsolved, duplicates, diversity, seed),
        "scores": scores,
        "out": out,
        "copy_images": copy_images or None,
        "memory": memory,
        "parameters": whole(parameters, "--parameters"),
    }
    with extras():
        from vfl.select.subset import FilterConfig, filter_scores
    settings = validated(FilterConfig, with_sets(config, given, sets), source=str(config or "settings"))
    show_subset(filter_scores(settings, overwrite=overwrite), settings.out)


@app.command("report")
def report_command(
    scores: Annotated[Path, typer.Argument(help="Folder that `vfl select score` wrote.")],
    out: Annotated[Path, typer.Option(help="The page to write, such as report.html.")],
    subset: Annotated[Path | None, typer.Option(help="Folder that `vfl select filter` wrote.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="The data that was scored (where it was then).")] = None,
    images: Images = None,
    memory: Annotated[str, typer.Option(help="Most memory of duckdb.")] = "1GB",
) -> None:
    """Write one HTML page: classes, scores, sample cards, the subset beside all data, agreement with baselines."""
    with extras():
        from vfl.select.selection_report import write_selection_report
    path = write_selection_report(scores, out, subset=subset, data=data, images=images, memory=memory)
    told(f"Report: {path}")


@app.command("run")
def run_command(
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the subset and its report.html.")] = None,
    scores: Annotated[Path | None, typer.Option(help="Folder for the scores (OUT-scores).")] = None,
    budget: Budget = None,
    images: Images = None,
    format: Format = None,
    split: Split = None,
    allow_remote: Remote = False,
    model: Model = None,
    map: Map = None,
    functions: Functions = None,
    ablation: Ablation = None,
    batch: Batch = None,
    dtype: Dtype = None,
    device: Device = None,
    strict: Strict = False,
    policy: PolicyName = None,
    shares: Shares = None,
    target: Target = None,
    include: Include = None,
    unsolved: Unsolved = None,
    duplicates: Duplicates = None,
    diversity: Diversity = None,
    seed: Seed = None,
    copy_images: CopyImages = False,
    config: Annotated[
        Path | None, typer.Option(help="YAML recipe: `score:` and `filter:` with their settings.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Such as score.batch=8 or filter.end=low.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another subset in --out.")] = False,
) -> None:
    """Score, filter and report in one go. Scores that are there already are not made again."""
    from vfl.config import validated

    with extras():
        from vfl.select.outfolder import refuse_if_taken
        from vfl.select.recipe import SelectRecipe, read_select_recipe
        from vfl.select.scorefolder import MANIFEST
        from vfl.select.selection_report import write_selection_report
        from vfl.select.settings import ScoreConfig
        from vfl.select.subset import FilterConfig, filter_scores
    recipe: SelectRecipe = read_select_recipe(
        config,
        sets or (),
        top={"out": out, "scores": scores},
        score={
            **reading_flags(data, images, format, split, allow_remote),
            **model_flags(model, map, functions, ablation, batch, dtype, device, strict),
        },
        filter={
            **choice_flags(budget, policy, shares, target, include, unsolved, duplicates, diversity, seed),
            "copy_images": copy_images or None,
        },
    )
    # both are checked before the first row is scored
    scoring = validated(ScoreConfig, {**recipe.score, "out": recipe.scores_folder}, source="score")
    choosing = validated(
        FilterConfig, {**recipe.filter, "scores": recipe.scores_folder, "out": recipe.out}, source="filter"
    )
    refuse_if_taken(choosing.out, MANIFEST, overwrite=overwrite)
    finish_scores(score_with(scoring, overwrite=False))
    if int(os.environ.get("RANK", "0")):
        return  # of several processes, one selects
    show_subset(filter_scores(choosing, overwrite=overwrite), choosing.out)
    told(f"Report: {write_selection_report(scoring.out, choosing.out / 'report.html', subset=choosing.out)}")


def score_with(settings: Any, *, overwrite: bool) -> Path:
    """Score; an interruption says how to go on."""
    with extras():
        from vfl.select.scoring import score
    try:
        return score(settings, overwrite=overwrite)
    except KeyboardInterrupt:
        told(f"Interrupted. What was finished is kept in {settings.out}; the same command goes on.", error=True)
        raise typer.Exit(130) from None


def finish_scores(folder: Path) -> None:
    """Write the default classes beside the scores, and say where they are."""
    if int(os.environ.get("RANK", "0")):
        return
    from vfl.select.classes import classify

    classify(folder)
    told(f"Scores: {folder}")


def show_subset(manifest: Mapping[str, Any], out: Path) -> None:
    """The subset as a table, and what to do with it."""
    table = Table(title=Text(f"{manifest['rows']:,} of {manifest['scored']:,} scored rows"), box=SIMPLE_HEAD)
    for heading in ("class", "rows", "unsolved", "chosen", "kept"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for name, one in manifest["counts"]["class"].items():
        kept = f"{100 * one['chosen_rows'] / max(one['rows'], 1):.1f} %"
        table.add_row(Text(name), f"{one['rows']:,}", f"{one['unsolved']:,}", f"{one['chosen_rows']:,}", kept)
    Console().print(table)
    show_coverage(manifest["coverage"])
    for what, count in manifest.get("balance", {}).get("left_out", {}).items():
        told(f"Left out or last, {what}: {count:,} rows")
    budget = manifest["budget"]
    told(f"Budget: {budget['spent']:,} of {budget['limit']:,} {budget['unit']}")
    for note in manifest["notes"]:
        told(f"Note: {note}")
    for file in manifest["files"]:
        told(f"Data: {out / file}")
    if manifest["images"]:
        told(f"Images that rows name are in {manifest['images']}")


def show_coverage(found: Mapping[str, Any]) -> None:
    """Answers and kinds of question of the subset beside those of the data, and how much is unsolved in both."""
    for title, heading in (("answers", "answer"), ("openings", "questions that begin")):
        if not found[title]:
            continue
        table = Table(box=SIMPLE_HEAD)
        for name in (heading, "data", "subset"):
            table.add_column(name, justify="left" if name == heading else "right")
        for one in found[title]:
            shares = (one["rows"] / max(found["rows"], 1), one["chosen"] / max(found["chosen"], 1))
            table.add_row(Text(one["text"]), *(f"{100 * share:.1f} %" for share in shares))
        Console().print(table)
    unsolved = found["unsolved"]
    told(f"Unsolved: {100 * unsolved['data']:.1f} % of the data, {100 * unsolved['subset']:.1f} % of the subset")


def reading_flags(
    data: list[Path] | None, images: Path | None, format: str | None, split: str | None, allow_remote: bool
) -> dict[str, Any]:
    """What to read, as settings."""
    return {
        "data": tuple(data) if data else None,
        "images": images,
        "format": format,
        "split": split,
        "allow_remote": allow_remote or None,
    }


def model_flags(
    model: str | None,
    map: Path | None,
    functions: str | None,
    ablation: str | None,
    batch: int | None,
    dtype: str | None,
    device: str | None,
    strict: bool,
) -> dict[str, Any]:
    """What to score with, as settings."""
    return {
        "model": model,
        "map": map,
        "functions": functions,
        "ablation": ablation,
        "batch": batch,
        "dtype": dtype,
        "device": device,
        "strict": strict or None,
    }


def choice_flags(
    budget: str | None,
    policy: str | None,
    shares: str | None,
    target: str | None,
    include: str | None,
    unsolved: str | None,
    duplicates: str | None,
    diversity: int | None,
    seed: int | None,
) -> dict[str, Any]:
    """What to choose, as settings."""
    return {
        "budget": budget,
        "policy": policy,
        "shares": weights(shares),
        "target": weights(target),
        "include": include,
        "unsolved": unsolved,
        "duplicates": duplicates,
        "diversity": diversity,
        "seed": seed,
    }


def weights(written: str | None) -> Any:
    """ "ocr=2,counting=1" as numbers by name; anything without "=" stays as it is."""
    from vfl.errors import InputError

    if written is None or "=" not in written:
        return written
    try:
        return {name.strip(): float(number) for name, number in (one.split("=") for one in written.split(","))}
    except ValueError:
        raise InputError(f"{written!r} is no list of weights; write such as ocr=2,counting=1.") from None


def whole(written: str | None, name: str) -> int | None:
    """ "7e9" as a number."""
    from vfl.errors import InputError

    try:
        return None if written is None else int(float(written))
    except (ValueError, OverflowError):
        raise InputError(f"{name} is {written!r}; expected a number, such as 7e9.") from None


def with_sets(config: Path | None, given: Mapping[str, Any], sets: list[str] | None) -> dict[str, Any]:
    """Settings of a file, with flags over them, and `--set key=value` over both."""
    from vfl.config import read_yaml, set_dotted

    values = {} if config is None else read_yaml(config)
    values |= {key: value for key, value in given.items() if value is not None}
    for one in sets or ():
        set_dotted(values, one)
    return values


@contextmanager
def extras() -> Iterator[None]:
    """Imports that need the extra; without it, a line that says how to install it."""
    from vfl.errors import InputError

    try:
        yield
    except ImportError as error:
        raise InputError(f'Selecting needs {error.name}, which is not installed: pip install "vfl[select]"') from error


def told(line: str, *, error: bool = False) -> None:
    """A line for a person, or for the next command."""
    Console(stderr=error).print(line, markup=False, highlight=False, soft_wrap=True)
