"""webdataset: a tar archive in which the files of one sample stand together and share their name up to the first dot.

A sample has a .json with the row, or a .txt with a text that belongs to its images; its image files come with it.
"""

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any, BinaryIO

from vfl.data.hashing import Hashes
from vfl.data.imageref import Span
from vfl.data.kinds import kinds_of_row
from vfl.data.rawrow import RawRow, Start, parse_json
from vfl.errors import InputError

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm")
NAME = re.compile(r"^(?P<key>(?:.*/)?[^/.]+)\.(?P<extension>[^/]*)$")
"""The key goes up to the first dot after the last slash; files whose name begins with a dot belong to no sample."""


def rows(
    path: Path, *, only_ids: bool = False, start: Start | None = None, hashes: Hashes | None = None
) -> Iterator[RawRow]:
    """The samples of a .tar or .tar.gz file from `start` on, in order; with `only_ids` without their images.

    Raises:
        InputError: the archive is broken or cut off.
    """
    done = "the beginning"
    try:
        with _open_at(path, start, hashes) as handle, tarfile.open(fileobj=handle, mode="r:") as archive:
            home = None if is_packed(path) else path.absolute()
            for key, files in groupby(_files(archive, only_ids, home), key=lambda file: file[0]):
                members = list(files)
                # what a global header says holds for all files behind it
                begin = Start(members[0][-1], 0) if home is not None and not archive.pax_headers else None
                where = f"{path.name} sample {key}"
                yield _sample(where, key, [(name, data, span) for _, name, data, span, _ in members], begin)
                done = f"sample {key}"
            handle.seek(archive.offset)
            # a broken header ends tarfile's loop just as the end mark does, a block of zeros
            if handle.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("cut off, or a broken header")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is no intact tar archive (after {done}: {error})") from error


def is_packed(path: Path) -> bool:
    """Whether an archive is gzipped, whatever its name says."""
    with path.open("rb") as handle:
        return handle.read(2) == b"\x1f\x8b"


def open_member(path: Path) -> BinaryIO:
    """An archive's bytes, unpacked."""
    return _buffered(gzip.GzipFile(path)) if is_packed(path) else path.open("rb")


@contextmanager
def _open_at(path: Path, start: Start | None, hashes: Hashes | None) -> Iterator[BinaryIO]:
    """An archive's bytes from `start` on, unpacked."""
    with path.open("rb") if hashes is None else hashes.open(path) as stored:
        handle = _buffered(gzip.GzipFile(fileobj=stored)) if is_packed(path) else stored
        handle.seek(start.at if start else 0)
        yield handle


def _buffered(unpacked: gzip.GzipFile) -> BinaryIO:
    """tarfile makes small steps back: within a buffer they do not unpack the archive from its beginning."""
    return io.BufferedReader(unpacked, 2**20)


def _files(
    archive: tarfile.TarFile, only_ids: bool, home: Path | None
) -> Iterator[tuple[str, str, bytes, Span | None, int]]:
    """(key, name, bytes, their place in the file `home`, where its header begins) of files that can be of a sample."""
    while (member := archive.next()) is not None:
        # it keeps every header otherwise, and memory would grow with the archive
        archive.members.clear()  # type: ignore[attr-defined]
        match = NAME.match(member.name)
        if match is None or not member.isfile():
            continue
        extension = match["extension"].lower().rpartition(".")[2]
        if extension in ("json", "txt") or (extension in IMAGES and not only_ids):
            handle = archive.extractfile(member)
            assert handle is not None
            data = handle.read()
            if len(data) != member.size:
                raise tarfile.ReadError(f"{member.name} is cut off")
            span = None
            if home is not None and member.sparse is None:
                span = Span(home, member.offset_data, member.size)
            yield match["key"], member.name, data, span, member.offset


def _sample(where: str, key: str, members: list[tuple[str, bytes, Span | None]], start: Start | None) -> RawRow:
    files = {name: data for name, data, _ in members}
    images = {name: data for name, data in files.items() if _extension(name) in IMAGES}
    texts = {_extension(name): data for name, data in files.items() if _extension(name) in _TEXTS}
    spans = {name: span for name, _, span in members if span is not None and name in images}
    try:
        kinds = [name if _extension(name) in IMAGES else f".{_extension(name)}" for name, *_ in members]
        if twice := [kind for kind in dict.fromkeys(kinds) if kinds.count(kind) > 1]:
            raise InputError(
                f"the sample has two files {twice[0]} ({_list(name for name, *_ in members)}); what comes before a"
                " name's first dot is its sample's, so put another sign in place of further dots, or keep one file"
            )
        row = parse_json(texts["json"]) if "json" in texts else {}
        if not isinstance(row, dict):
            raise InputError(f"the .json is no object but {type(row).__name__}")
        if not kinds_of_row(row):
            if "txt" not in texts:
                raise InputError(
                    f"the sample has neither a .json with a conversation nor a .txt; files: {_list(files)}"
                )
            row = row | {"messages": _caption(texts["txt"], len(images))}
    except InputError as error:
        return RawRow(where, None, key=key, problem=str(error), stored=files, start=start)
    return RawRow(where, row, key=key, members=images, spans=spans, start=start)


_TEXTS = ("json", "txt")


def _caption(text: bytes, count: int) -> list[dict[str, Any]]:
    """A text beside images is the answer to the images alone."""
    try:
        answer = text.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"the .txt is not UTF-8 text ({error.reason} at byte {error.start})") from error
    return [
        {"role": "user", "content": [{"type": "image"}] * count},
        {"role": "assistant", "content": answer},
    ]


def _list(files: Iterable[str]) -> str:
    return ", ".join(islice(files, 8))


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower()
