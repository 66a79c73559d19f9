"""The folder that a run leaves: preference rows, what became of every row, and where all of it came from.

OUT/negatives.jsonl   a row each: id, images, prompt, chosen, rejected
OUT/answers.jsonl     every row of the data: uid, outcome, answer, reason
OUT/settings.yaml     the settings of the run
OUT/manifest.json     written last; `vfl.data` reads the folder by it, so that it is given to `data.train` as it is
"""

import base64
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vfl.data import BadRow, ImageRef, Sample
from vfl.errors import InputError
from vfl.functionmap import ModelId
from vfl.io.atomic import replacing
from vfl.io.json_files import write_json
from vfl.io.layers import layer_list
from vfl.io.notebook import html_table
from vfl.io.versions import versions
from vfl.negatives.asking import Asked, Outcome

MANIFEST, ROWS, ANSWERS = "manifest.json", "negatives.jsonl", "answers.jsonl"


class MapId(BaseModel):
    """The map that the layers came from, and for which functions."""

    model_config = ConfigDict(extra="forbid")

    path: str
    sha256: str
    functions: tuple[str, ...]


class Negatives(BaseModel):
    """manifest.json.

    Attributes:
        kind: what the folder is, for the readers of data.
        files: of rows.
        images: the folder that the rows' images are named from; None where no image is a file.
        model: that was blinded.
        map: where the layers came from; None for a user's own.
        layers: at which the text saw no vision tokens.
        rows: of the data.
        kept: of them, in the preference set.
        left_out: how many others, by why.
        settings: of the run.
        versions: of what it depends on.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    kind: Literal["vfl negatives"] = "vfl negatives"
    files: tuple[str, ...] = (ROWS,)
    images: str | None
    model: ModelId
    map: MapId | None
    layers: list[int]
    rows: int
    kept: int
    left_out: dict[Outcome, int]
    settings: dict[str, Any]
    versions: dict[str, str] = Field(default_factory=versions)

    def __repr__(self) -> str:
        return f"Negatives({self.kept} of {self.rows} rows kept, blind at layers {layer_list(self.layers)})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        rows = [("kept", self.kept), *self.left_out.items()]
        return html_table(f"Preference rows, blind at layers {layer_list(self.layers)}", ("outcome", "rows"), rows)

    def save(self, folder: Path) -> None:
        """Write manifest.json, whole or not at all."""
        write_json(folder / MANIFEST, self.model_dump(mode="json"))


def write_rows(rows: Iterable[tuple[Sample, str]], path: Path, home: Path | None) -> None:
    """Write samples with their rejected answers as preference rows, a line each.

    Args:
        home: the folder that image files are named from.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for sample, rejected in rows:
            row = {
                "id": sample.uid,
                "images": [_image(image, home) for image in sample.images],
                "prompt": sample.messages[:-1],
                "chosen": sample.messages[-1:],
                "rejected": [{"role": "assistant", "content": [{"type": "text", "text": rejected}]}],
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_answers(asked: Iterable[Asked], path: Path) -> None:
    """Write what became of every row, a line each."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for outcome in asked:
            file.write(json.dumps(asdict(outcome), ensure_ascii=False) + "\n")


def kept_rows(rows: Iterable[Sample | BadRow], asked: Iterable[Asked]) -> Iterator[tuple[Sample, str]]:
    """The rows that are kept, each with its rejected answer.

    Raises:
        InputError: for rows that are no longer those that were asked.
    """
    for row, outcome in zip(rows, asked, strict=False):
        if row.uid != outcome.uid:
            raise InputError(
                f"{row.where}: the data changed while its rows were asked. Use --overwrite to begin again."
            )
        if outcome.outcome == "kept" and isinstance(row, Sample):
            yield row, outcome.answer


def home_of(rows: Iterable[tuple[Sample, str]]) -> Path | None:
    """The deepest folder that holds all image files of the rows."""
    folders = {str(image.path.parent) for sample, _ in rows for image in sample.images if image.path is not None}
    return Path(os.path.commonpath(folders)) if folders else None


def _image(image: ImageRef, home: Path | None) -> Any:
    """An image as a row names it: a file from `home`, an address, or its bytes."""
    if image.path is not None:
        assert home is not None
        return image.path.relative_to(home).as_posix()
    if image.url is not None:
        return image.url
    assert image.data is not None
    return {"base64": base64.b64encode(image.data).decode()}
