"""The chosen rows as data to train on: in the format that went in, with their scores and where everything came from.

subset/data/             the rows, file by file as they came; a saved dataset is this folder itself
subset/ids.txt           their uids, a line each, in the order of the data
subset/scores.parquet    their rows of the score table, with class, margin and standardised drops
subset/token-weights.parquet  with `token_weights`: which answer tokens count in training (vfl.data.token_weights)
subset/settings.yaml     the settings of the selection
subset/manifest.json     sources, hashes, settings, counts, versions
subset/dataset_info.json for LLaMA-Factory, where it can read the rows as they are
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, overload

import pyarrow.parquet as pq
from pydantic import Field

from vfl.data import Kind, Sample
from vfl.data.formats import kind_of, sources
from vfl.data.hf import is_dataset
from vfl.data.llamafactory import entry
from vfl.data.reading import open_data
from vfl.data.token_weights import TOKEN_WEIGHTS
from vfl.data.writearrow import select_rows
from vfl.data.writing import flags, write_part
from vfl.errors import InputError
from vfl.io.config import validated
from vfl.io.fields import Paths, SomeNames, several
from vfl.io.folders import replacing_folder
from vfl.io.json_files import write_json
from vfl.io.run_folder import RunFolder, write_settings
from vfl.io.versions import versions
from vfl.select.choose.counts import counts_of
from vfl.select.choose.coverage import coverage, little_answered, lost_answers
from vfl.select.choose.filtering import Choice, ChoiceConfig, choose, chosen_rows, chosen_uids
from vfl.select.shards.data_files import check_unchanged
from vfl.select.shards.score_folder import MANIFEST, ScoreFolder, database, open_scores
from vfl.select.subset.copies import ImageCopies
from vfl.select.subset.result import Subset
from vfl.select.subset.token_weights import WeightsWriter

DATA = "data"
IDS = "ids.txt"
TABLE = "scores.parquet"
DATASET_INFO = "dataset_info.json"
READING = ("images", "format", "split", "allow_remote", "image_column")
"""Settings of the scores that say how the data was read."""


class FilterConfig(ChoiceConfig):
    """A selection from a folder of scores, written to `out`."""

    scores: Path
    data: Paths | None = Field(default=None, description="the data that was scored; default: where it was then")
    images: Path | None = Field(default=None, description="folder of the images that the data's rows name")
    format: Kind | Literal["auto"] | None = None
    split: str | None = None
    allow_remote: bool | None = None
    image_column: SomeNames | None = None
    copy_images: bool = Field(default=False, description="put the rows' image files into the subset (hard links)")
    out: Path


def filter_scores(config: FilterConfig, *, overwrite: bool = False) -> dict[str, Any]:
    """Write a subset; what its manifest says.

    Raises:
        InputError: for settings, scores or data that don't go together, or where `out` is taken.
    """
    with folder_of(config).held(overwrite=overwrite, can_resume=False):
        return _filtered(config)


def folder_of(config: FilterConfig) -> RunFolder:
    """The folder of a subset."""
    return RunFolder(config.out, MANIFEST, holds="a subset", whole=True)


def _filtered(config: FilterConfig) -> dict[str, Any]:
    folder = open_scores(config.scores)
    data = _data_of(config, folder)
    reading = _reading_of(config, folder)
    check_unchanged(folder.manifest, list(data), reading["split"])
    opened = open_data(list(data), **reading)
    with database(config.memory, config.threads) as connection:
        choice = choose(connection, folder, config, opened)
        with replacing_folder(config.out) as out:
            write_table(connection, out / TABLE)
            write_ids(connection, out / IDS)
            copies = ImageCopies(out / DATA, data, reading["images"]) if config.copy_images else None
            with _weights(connection, out / TOKEN_WEIGHTS, config.token_weights) as weights:
                keep = flags(opened.rows(), _lines(out / IDS), _for_each(copies, weights))
                written = write_part(list(data), keep, out / DATA, split=reading["split"])
            files = [str(file.relative_to(out)) for file in written]
            info = _dataset_info(out, written)
            if info:
                write_json(out / DATASET_INFO, info)
            covered = coverage(connection)
            notes = choice.notes + lost_answers(connection, covered)
            if config.policy == "balanced":
                notes += little_answered(connection)
            manifest = {
                "kind": "vfl subset",
                "files": files,
                "rows": choice.rows,
                "budget": {"given": config.budget, "limit": choice.limit, "spent": choice.spent, "unit": choice.unit},
                "scored": choice.scored,
                "left_out": {"duplicates": choice.duplicates, "alike": choice.alike},
                "notes": notes + (copies.notes if copies else []),
                "counts": counts_of(connection),
                "coverage": covered,
                **balance_of(choice),
                **({} if weights is None else {"token_weights": weights.facts}),
                **provenance(folder, config, choice),
                "data": [str(path) for path in data],
                "images": None if config.copy_images else str(_image_home(data, reading["images"])),
                "reading": {key: str(value) if isinstance(value, Path) else value for key, value in reading.items()},
            }
            write_settings(out, manifest["settings"] | {"scores": manifest["scores"]})
            write_json(out / MANIFEST, manifest)
    return manifest


class Dataset(Protocol):
    """What a checker is told of a `datasets.Dataset`: the library is optional and may have no types."""

    @property
    def column_names(self) -> list[str]:
        """The columns."""

    def select(self, indices: Any) -> Any:
        """The rows at these places."""


D = TypeVar("D", bound=Dataset)


@overload
def filter_data(scores: str | PathLike[str], data: D, *, budget: str | int | float, **settings: Any) -> D: ...


@overload
def filter_data(
    scores: str | PathLike[str],
    data: str | Path | Sequence[str | Path] | None = None,
    *,
    budget: str | int | float,
    out: str | Path,
    **settings: Any,
) -> Subset: ...


def filter_data(
    scores: str | PathLike[str],
    data: Any = None,
    *,
    budget: str | int | float,
    out: str | Path | None = None,
    **settings: Any,
) -> Any:
    """Choose rows to a budget from stored scores.

        subset = vfl.filter("scores", dataset, budget="20%")        # datasets.Dataset in and out
        vfl.filter("scores", "llava.json", budget="2M answer tokens", out="subset").plot()

    Args:
        scores: what `vfl.score` gave, or its folder.
        data: the data that was scored: a `datasets.Dataset`, or paths; by default where it was then.
        out: folder for the subset; needed for paths.
        settings: fields of `FilterConfig`, such as policy, shares, seed, duplicates, overwrite.

    Returns:
        The chosen rows as a `datasets.Dataset` where one was given, else the subset in the folder `out`.

    Raises:
        InputError: for settings, scores or data that don't go together.
    """
    overwrite = bool(settings.pop("overwrite", False))
    if not is_dataset(data):
        if out is None:
            raise InputError("vfl.filter needs out, a folder for the subset, unless data is a datasets.Dataset.")
        values = {"scores": Path(scores), "data": data, "budget": budget, "out": Path(out), **settings}
        values = {key: value for key, value in values.items() if value is not None}
        manifest = filter_scores(validated(FilterConfig, values, source="settings"), overwrite=overwrite)
        return Subset(Path(out), manifest)
    if out is not None:
        raise InputError("out was given with a datasets.Dataset; leave it out, and save what is returned.")
    folder = open_scores(Path(scores))
    check_unchanged(folder.manifest, data)
    scored = folder.manifest.get("settings", {})  # read as for the scores, unless said otherwise
    read_so = {name: settings.pop(name, None) or scored.get(name) for name in READING}
    reading = {name: value for name, value in read_so.items() if value is not None}
    config = validated(ChoiceConfig, {"budget": budget, **settings}, source="settings")
    if config.token_weights is not None:
        raise InputError(
            "token_weights are written to a file beside the data, and a datasets.Dataset has none: save it"
            " with save_to_disk, score that folder, and give out."
        )
    opened = open_data(data, **reading)
    with database(config.memory, config.threads) as connection:
        choose(connection, folder, config, opened)
        return select_rows(data, flags(opened.rows(), chosen_uids(connection)))


def provenance(folder: ScoreFolder, config: ChoiceConfig, choice: Choice) -> dict[str, Any]:
    """What the chosen rows depend on: the scores with the hashes they were made from, settings, seed and versions."""
    of_scores: dict[str, Any] = {
        key: folder.manifest[key] for key in ("sources", "model", "map", "functions") if key in folder.manifest
    }
    spreads = {
        f"{measure}/{name}": {"mean": spread.mean, "deviation": spread.deviation}
        for (measure, name), spread in choice.spreads.items()
    }
    return {
        **of_scores,
        "scores": str(folder.path.resolve()),
        "standardisation": spreads,
        "seed": config.seed,
        "settings": config.model_dump(mode="json", exclude={"out", "scores"}, exclude_none=True),
        "versions": versions("duckdb", "pyarrow"),
    }


def balance_of(choice: Choice) -> dict[str, Any]:
    """What the policy balanced found: its clusters, and how many rows it left out for what."""
    if choice.balance is None:
        return {}
    clusters = [vars(one) for one in choice.balance.clusters]
    return {"balance": {"left_out": choice.balance.left_out, "clusters": clusters}}


def _weights(connection: Any, path: Path, threshold: float | None) -> AbstractContextManager[WeightsWriter | None]:
    return nullcontext() if threshold is None else WeightsWriter(connection, path, threshold)


def _for_each(*jobs: ImageCopies | WeightsWriter | None) -> Callable[[Sample], None]:
    """What is done with each chosen row."""

    def kept(sample: Sample) -> None:
        for job in jobs:
            if job is not None:
                job.add(sample)

    return kept


def _data_of(config: FilterConfig, folder: ScoreFolder) -> tuple[Path, ...]:
    if config.data:
        return config.data
    scored = folder.manifest.get("settings", {}).get("data")
    if not scored:
        raise InputError("Where is the data? The scores don't tell (it was no file); give --data.")
    data = tuple(map(Path, several(scored)))
    gone = next((path for path in data if not path.exists()), None)
    if gone is not None:
        raise InputError(f"{gone}, which was scored, is not there any more; say where it is now with --data.")
    return data


def _reading_of(config: FilterConfig, folder: ScoreFolder) -> dict[str, Any]:
    """How to read the data: as it was read for the scores, unless said otherwise."""
    scored = folder.manifest.get("settings", {})
    own = {name: getattr(config, name) for name in READING}
    read_so = {name: scored.get(name) if value is None else value for name, value in own.items()}
    images = read_so["images"]
    return {
        "images": None if images is None else Path(images),
        "format": read_so["format"] or "auto",
        "split": read_so["split"],
        "allow_remote": bool(read_so["allow_remote"]),
        "image_column": read_so["image_column"],
    }


def _image_home(data: tuple[Path, ...], images: Path | None) -> Path:
    """The folder that the rows' image names are relative to."""
    home = images or (data[0] if data[0].is_dir() else data[0].parent)
    return home.resolve()


def write_table(connection: Any, path: Path) -> None:
    """The chosen rows of the score table, with their classes, in the order of the data."""
    writer = None
    try:
        for rows in chosen_rows(connection):
            writer = writer or pq.ParquetWriter(path, rows.schema)
            writer.write_table(rows)
    finally:
        if writer is not None:
            writer.close()


def write_ids(connection: Any, path: Path) -> None:
    """The chosen rows' uids, a line each, in the order of the data."""
    with path.open("w", encoding="utf-8") as handle:
        for uid in chosen_uids(connection):
            handle.write(f"{uid}\n")


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="\n") as handle:
        for line in handle:
            yield line.removesuffix("\n")


def _dataset_info(out: Path, written: list[Path]) -> dict[str, Any]:
    """Entries for those files that LLaMA-Factory reads as they are, named after the subset's folder and the file."""
    entries = {}
    for file in written:
        if file.is_file():
            (source,) = sources(file)
            first = next((raw.row for raw in source.rows() if raw.row is not None), None)
            if source.container in ("json", "jsonl", "parquet") and first is not None:
                described = entry(kind_of(source)[0], first, str(file.relative_to(out)))
                if described:
                    entries[file.stem] = described
    return entries
