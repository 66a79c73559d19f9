"""Read training or selection data of any known format as one stream of samples, in constant memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from vfl.data.conversation import IMAGE_COLUMNS, converse
from vfl.data.formats import LOOKED_AT, NoRowsError, Source, kind_of, sources
from vfl.data.hashing import Hashes
from vfl.data.imagefolder import ImageFolder, MissingImageError
from vfl.data.imageref import ImageRef
from vfl.data.kinds import KINDS, Kind, kinds_of_row
from vfl.data.rawrow import RawRow
from vfl.data.sample import BadRow, Place, Sample
from vfl.data.sounds import as_images
from vfl.data.uids import Named, Namer, Unnamed, content_digest, repeated_ids, stored_digest
from vfl.errors import InputError

Names = Namer | Named | Unnamed
Medium = Literal["image", "audio"]


def read(
    source: Any,
    *,
    images: str | Path | None = None,
    format: Kind | Literal["auto"] = "auto",
    split: str | None = None,
    allow_remote: bool = False,
    image_column: str | Sequence[str] | None = None,
    keep_rows: bool = False,
    streaming: bool = False,
    medium: Medium = "image",
) -> Iterator[Sample | BadRow]:
    """The rows of `source` in order, each as a sample or as a bad row; nothing is left out.

        for row in vfl.data.read("llava.json", images="train2017"):
            print(row.uid, row.reason if isinstance(row, BadRow) else row.messages)

    The data is gone through twice: once for the ids (to see which repeat), once for the rows. Images are looked up,
    and neither opened nor fetched. Memory does not grow with the data but for the 8 bytes of each given id and the 18
    to 36 of each row that has no id of its own.

    Args:
        source: a file, a folder of shards, a folder that `save_to_disk` wrote, a `datasets.Dataset`, or several of
            these as a list or tuple.
        images: the folder that image names are relative to and must stay in; the data file's folder if not given.
        split: for a saved dataset with several splits.
        allow_remote: let images be addresses (http, https), fetched when they are opened.
        image_column: the column, or columns in order, with the images; default: `images` or `image`.
        keep_rows: keep the stored row in `Sample.row`.
        streaming: read parquet of an address on the hub (hf://) piece by piece, without fetching the files.
        medium: "audio" reads rows of an audio language model: sounds stand where images do, in `audio` or `audios`,
            with <audio> in the text, and are the sample's `images`, unopened.

    Raises:
        InputError: at once for a source that is not there or of no known format, and while reading where a container
            is broken so that the rows after that cannot be found.
    """
    return open_data(
        source,
        images=images,
        format=format,
        split=split,
        allow_remote=allow_remote,
        image_column=image_column,
        keep_rows=keep_rows,
        streaming=streaming,
        medium=medium,
    ).rows()


@dataclass(frozen=True)
class Data:
    """Data whose files are known, and the kind of the rows of each: what is decided once, however often it is read."""

    parts: list[Source]
    kinds: list[Kind]
    root: Path | None
    allow_remote: bool
    image_columns: Sequence[str] | None
    keep_rows: bool
    mixed: bool
    """Whether each row is of its own kind, where its columns tell."""
    medium: Medium = "image"

    def rows(self, names: Names | None = None, hashes: Hashes | None = None) -> Iterator[Sample | BadRow]:
        """All rows; see `read`.

        Args:
            names: what names them; then no reading goes before for the ids.
            hashes: is fed with the files while they are read.
        """
        if names is None:
            names = Namer(repeated_ids(raw.given_id for part in self.parts for raw in part.rows(only_ids=True)))
        how = {} if hashes is None else {"hashes": hashes}
        for number in range(len(self.parts)):
            yield from self._rows_of(number, names, enumerate(self.parts[number].rows(**how)))

    def rows_from(self, place: Place, names: Names) -> Iterator[Sample | BadRow]:
        """The rows from the one at `place` on until the names end, the first of which is its own."""
        first, start = self.parts[place.part], place.start
        raw_rows = enumerate(first.rows() if start is None else first.rows(start=start))
        yield from self._rows_of(place.part, names, islice(raw_rows, place.skip, None))
        for number in range(place.part + 1, len(self.parts)):
            if names.ended:
                return
            yield from self._rows_of(number, names, enumerate(self.parts[number].rows()))

    def _rows_of(self, number: int, names: Names, raw_rows: Iterator[tuple[int, RawRow]]) -> Iterator[Sample | BadRow]:
        part, kind = self.parts[number], self.kinds[number]
        folder = ImageFolder(self.root if self.root is not None else part.home, self.allow_remote)
        for before, raw in raw_rows:
            if names.ended:
                return
            row_kind = _kind(raw, kind) if self.mixed else kind
            row = _sample(raw, row_kind, folder, names, self.image_columns, self.keep_rows, self.medium)
            yield replace(row, place=Place(number, raw.start, 0 if raw.start else before))


def open_data(
    source: Any,
    *,
    images: str | Path | None = None,
    format: Kind | Literal["auto"] = "auto",
    split: str | None = None,
    allow_remote: bool = False,
    image_column: str | Sequence[str] | None = None,
    keep_rows: bool = False,
    streaming: bool = False,
    medium: Medium = "image",
) -> Data:
    """What `read` reads, to read it in several ways. Args and errors as of `read`."""
    root = None if images is None else Path(images)
    if root is not None and not root.is_dir():
        raise InputError(f"the image folder {root} does not exist; give the folder that image names are relative to")
    if format != "auto" and format not in KINDS:
        raise InputError(f"format {format!r} is unknown; expected auto, {', '.join(KINDS)}")
    data_sources = list(source) if isinstance(source, Sequence) and not isinstance(source, str) else [source]
    if not data_sources:
        raise InputError("no data was given; expected at least one file")
    parts = [part for data_source in data_sources for part in sources(data_source, split, streaming=streaming)]
    kinds = _kinds(parts) if format == "auto" else [format] * len(parts)
    columns = (image_column,) if isinstance(image_column, str) else image_column
    if columns is not None:
        _check_columns(parts, columns)
    return Data(parts, kinds, root, allow_remote, columns, keep_rows, format == "auto", medium)


def _kinds(parts: list[Source]) -> list[Kind]:
    """The kind of each part; shards without rows, as writers of many leave them, go with the others."""
    found: list[Kind | NoRowsError] = []
    for part in parts:
        try:
            found.append(kind_of(part)[0])
        except NoRowsError as error:
            found.append(error)
    known = [kind for kind in found if not isinstance(kind, NoRowsError)]
    if not known:
        assert isinstance(found[0], NoRowsError)
        raise found[0]
    return [known[0] if isinstance(kind, NoRowsError) else kind for kind in found]


def _check_columns(parts: list[Source], columns: Sequence[str]) -> None:
    """Raise InputError unless each image column is in some of the first rows."""
    there = {name for part in parts for raw in islice(part.rows(only_texts=True), LOOKED_AT) for name in raw.row or ()}
    for name in columns or ("",):
        if name not in there:
            raise InputError(
                f"image_column names {name!r}, which no row has; expected one of the columns {', '.join(sorted(there))}"
            )


def _kind(raw: RawRow, usual: Kind) -> Kind:
    """The kind of a row in a file of several; the file's own where the row's columns leave it open."""
    kinds = kinds_of_row(raw.row) if raw.row is not None else []
    return kinds[0] if len(kinds) == 1 else usual


def _sample(
    raw: RawRow,
    kind: Kind,
    folder: ImageFolder,
    names: Names,
    image_columns: Sequence[str] | None,
    keep_rows: bool,
    medium: Medium,
) -> Sample | BadRow:
    if raw.row is None:
        return BadRow(raw.where, names.name(raw.given_id, stored_digest(raw.stored)), raw.problem)
    try:
        row = raw.row if medium == "image" else as_images(raw.row, image_columns)
        conversation, images = converse(row, kind, folder, raw.members, image_columns)
    except InputError as error:
        missing = error.path if isinstance(error, MissingImageError) else None
        return BadRow(raw.where, names.name(raw.given_id, stored_digest(raw.row)), str(error), missing=missing)
    images = tuple(_placed(image, raw) for image in images)
    read_already = (*KINDS[kind][0], *(image_columns or IMAGE_COLUMNS))
    return Sample(
        uid=names.name(raw.given_id, content_digest(conversation.turns, conversation.rejected, images)),
        where=raw.where,
        messages=tuple(conversation.turns),
        images=images,
        rejected=None if conversation.rejected is None else tuple(conversation.rejected),
        prompt=conversation.prompt,
        columns={
            name: value
            for name, value in raw.row.items()
            if name not in read_already and (value is None or isinstance(value, (str, int, float)))
        },
        row=raw.row if keep_rows else None,
    )


def _placed(image: ImageRef, raw: RawRow) -> ImageRef:
    """The image with its place, where it is a member that came with the row, or lies in its cells."""
    if image.data is None:
        return image
    if raw.stored_row is not None:
        assert raw.row is not None
        return replace(image, cell=raw.stored_row.cell(raw.row, image.data))
    return next(
        (replace(image, span=span) for name, span in raw.spans.items() if raw.members[name] is image.data), image
    )
