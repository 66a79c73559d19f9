"""A webdataset archive, a part of its samples: all files of a kept sample, those that nobody reads as well."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from vfl.data import webdataset
from vfl.errors import InputError
from vfl.io.disk import is_full

Held = list[tuple[tarfile.TarInfo, bytes]]


def write_tar(path: Path, keep: Iterator[bool], out: Path) -> int:
    """The kept samples of a .tar or .tar.gz file, in order and packed as it is; how many there are.

    A sample begins at a file that the reader takes for a part of one and whose key is another than the one before it.
    Its other files may stand before that file.
    """
    count = 0
    current: str | None = None
    kept = False
    before: tuple[str | None, Held] = (None, [])  # files that nobody reads, of a sample that has not begun
    try:
        with ExitStack() as stack:
            source, target = _open(path, out, stack)
            for member in _members(source):
                match = webdataset.NAME.match(member.name)
                if match is None or not member.isfile():
                    continue
                key = match["key"]
                if match["extension"].lower().rpartition(".")[2] in ("json", "txt", *webdataset.IMAGES):
                    if key != current:
                        current, kept = key, next(keep)
                        count += kept
                        for held, data in before[1] if kept and before[0] == key else ():
                            _add(target, held, io.BytesIO(data))
                        before = (None, [])
                    if kept:
                        _add(target, member, source.extractfile(member))
                elif key != current:
                    others = before[1] if before[0] == key else []
                    handle = source.extractfile(member)
                    assert handle is not None
                    before = (key, [*others, (member, handle.read())])
                elif kept:
                    _add(target, member, source.extractfile(member))
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        if is_full(error):
            raise
        raise InputError(f"{path} cannot be copied ({error})") from error
    return count


def _open(path: Path, out: Path, stack: ExitStack) -> tuple[tarfile.TarFile, tarfile.TarFile]:
    packed = webdataset.is_packed(path)
    plain = stack.enter_context(out.open("wb"))
    writer: Any = plain
    if packed:
        # without a name and a time in its head, the same rows give the same bytes
        writer = stack.enter_context(gzip.GzipFile(filename="", fileobj=plain, mode="wb", compresslevel=6, mtime=0))
    reader = stack.enter_context(webdataset.open_member(path))
    source = stack.enter_context(tarfile.open(fileobj=reader, mode="r:"))  # noqa: SIM115, the stack closes it
    target = stack.enter_context(tarfile.open(fileobj=writer, mode="w:", format=tarfile.PAX_FORMAT))  # noqa: SIM115
    return source, target


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # it keeps every header otherwise
        yield member


def _add(archive: tarfile.TarFile, member: tarfile.TarInfo, data: IO[bytes] | None) -> None:
    archive.addfile(member, data)
    archive.members.clear()  # type: ignore[attr-defined]
