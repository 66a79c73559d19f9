"""Where items come from: suites of probe pairs, generated or a user's own, and data sets in any format that is read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from vfl.data import BadRow, Kind, Sample, read
from vfl.errors import InputError
from vfl.evaluate.items import EvalItem, items_of_data
from vfl.evaluate.right_answers import RowMatch
from vfl.io.fields import OnBadRow, Paths, SomeNames
from vfl.probes.functions import PAPER_FUNCTIONS
from vfl.probes.make import make
from vfl.probes.pair import PROBES_FILE, Pair, read_suite
from vfl.probes.style import STYLES


class DataSet(BaseModel):
    """A data set to evaluate on; its rows end with the right answer."""

    model_config = ConfigDict(extra="forbid")

    path: Paths
    images: Path | None = Field(default=None, description="folder of the images that rows name")
    format: Kind | Literal["auto"] = "auto"
    image_column: SomeNames | None = Field(
        default=None, description="column, or columns in order, with the images; default: images or image"
    )
    column: str | None = Field(default=None, description="accuracy is given for each value of this column")
    match: RowMatch = Field(
        default="auto", description="how answers are compared; box and point: in pixels of the file, never guessed"
    )
    max_new_tokens: int | None = Field(default=None, ge=1)
    rows: int | None = Field(default=None, ge=1, description="only the first so many")
    on_bad_row: OnBadRow = "error"


def items_of_set(name: str, data: DataSet) -> tuple[list[EvalItem], list[str]]:
    """The items of a data set, and why rows were left out.

    Raises:
        InputError: for a row that can't be asked, unless bad rows are to be skipped; or if no row is left.
    """
    items: list[EvalItem] = []
    left_out: list[str] = []
    for row in read(list(data.path), images=data.images, format=data.format, image_column=data.image_column):
        if data.rows is not None and len(items) == data.rows:
            break
        try:
            items += _item(name, data, row)
        except InputError as error:
            if data.on_bad_row == "error":
                raise InputError(
                    f"Data set {name!r}: {error}. Mend the row, or leave such rows out with on_bad_row: skip "
                    "(--on-bad-row skip)."
                ) from error
            left_out.append(str(error))
    if not items:
        raise InputError(
            f"Data set {name!r} at {', '.join(map(str, data.path))} has no row that can be asked ({len(left_out)} left "
            "out)."
        )
    return items, left_out


def suite_of(
    probes: str,
    folder: Path,
    *,
    functions: Sequence[str] | None = None,
    pairs: int = 100,
    seed: int = 1,
    size: int | None = None,
) -> list[Pair]:
    """The pairs of a suite: a folder's, or generated ones (`standard`, `micro`), written below `folder` if not there.

    Args:
        probes: a style's name or a suite's folder.
        folder: where generated suites go.
        functions: all of a user's suite, or the paper's four, if None.
        pairs: generated pairs a function.
        seed: of generated pairs; another than that of `vfl locate` (0) makes them held out.
        size: pixels of generated images.

    Raises:
        InputError: for a suite that can't be read, or functions that it lacks.
    """
    if probes not in STYLES:
        own_pairs = read_suite(probes)
        present = list(dict.fromkeys(pair.function for pair in own_pairs))
        if unknown := [name for name in functions or () if name not in present]:
            raise InputError(f"The suite {probes} has no pairs for {', '.join(unknown)}; it has {', '.join(present)}.")
        return [pair for pair in own_pairs if functions is None or pair.function in functions]
    style = STYLES[probes] if size is None else STYLES[probes].resized(size)
    names = tuple(functions or PAPER_FUNCTIONS)
    suite = folder / f"{probes}-{style.size}-{pairs}-{seed}-{'-'.join(names)}"
    if not (suite / PROBES_FILE).exists():
        return make(suite, names, pairs=pairs, seed=seed, style=style)
    return read_suite(suite)


def _item(name: str, data: DataSet, row: Sample | BadRow) -> list[EvalItem]:
    if isinstance(row, BadRow):
        raise InputError(f"{row.where}: {row.reason}")
    for image in row.images:
        try:
            image.check()  # now, and not when half of the answers are there
        except InputError as error:
            raise InputError(f"{row.where}: {error}") from error
    return items_of_data([row], data.column, name=name, match=data.match, max_new_tokens=data.max_new_tokens)
