"""Hugging Face datasets: a folder that `save_to_disk` wrote, one split of several, or a `datasets.Dataset` in memory.

`datasets` is imported here only, and only when such data is read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from vfl.data.arrowrows import BATCH, batch_rows
from vfl.data.rawrow import RawRow, Start
from vfl.errors import InputError

SPLITS_FILE = "dataset_dict.json"
STATE_FILE = "state.json"
ID_BATCH = 512


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return (folder / SPLITS_FILE).is_file() or (folder / STATE_FILE).is_file()


def load(folder: Path, split: str | None) -> Any:
    """A saved dataset as `datasets.Dataset`.

    Raises:
        InputError: it has several splits and `split` names none of them, or it cannot be loaded.
    """
    datasets = _library()
    try:
        loaded = datasets.load_from_disk(str(folder))
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{folder} cannot be loaded as a Hugging Face dataset ({error})") from error
    if not isinstance(loaded, datasets.DatasetDict):
        if split is not None:
            raise InputError(f"{folder} has no splits, but the split {split!r} was asked for; leave it out")
        return loaded
    names = ", ".join(loaded)
    if split is None and len(loaded) != 1:
        raise InputError(f"{folder} has the splits {names}; give one of them, such as {folder / next(iter(loaded))}")
    if split is not None and split not in loaded:
        raise InputError(f"{folder} has no split {split!r}; it has {names}")
    return loaded[split if split is not None else next(iter(loaded))]


def is_dataset(source: Any) -> bool:
    """Whether this is an object of the library `datasets` (which is then there to ask)."""
    return type(source).__module__.partition(".")[0] == "datasets"


def check_dataset(source: Any) -> None:
    """Raise InputError unless an object of the library is one dataset with rows that can be read again."""
    if not isinstance(source, _library().Dataset):
        raise InputError(f"a {type(source).__name__} was given; expected a datasets.Dataset (one split, not streamed)")


def rows(dataset: Any, name: str, *, only_ids: bool = False, start: Start | None = None) -> Iterator[RawRow]:
    """The rows of a `datasets.Dataset` from `start` on; images stay as stored. With `only_ids`, only the column id."""
    datasets = _library()
    if only_ids:
        if "id" not in dataset.column_names:
            return
        dataset = dataset.select_columns(["id"])
    labels = {key: kind for key, kind in dataset.features.items() if isinstance(kind, datasets.ClassLabel)}
    number = start.at if start else 0
    if start:
        dataset = dataset.select(range(number, len(dataset)))
    try:
        for table in dataset.with_format("arrow").iter(ID_BATCH if only_ids else BATCH):
            for row in batch_rows(table):
                place = Start(number, number + 1)
                number += 1
                where = f"{name} row {number}"
                if isinstance(row, InputError):
                    yield RawRow(where, None, problem=str(row), start=place)
                    continue
                for key, label in labels.items():
                    row[key] = None if row[key] is None else label.int2str(row[key])
                yield RawRow(where, row, start=place)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"the dataset {name} cannot be read after row {number} ({error})") from error


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InputError('reading Hugging Face datasets needs the package: pip install "vfl[train]"') from error
    return datasets
