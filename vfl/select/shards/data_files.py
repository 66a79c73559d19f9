"""The files of the data by their hashes, and whether they still are those that were scored."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vfl.data.formats import sources
from vfl.data.hashing import Hashes
from vfl.data.hf import is_dataset, is_saved
from vfl.errors import InputError


def sources_of(
    data: Any,
    known: list[dict[str, Any]] | None = None,
    split: str | None = None,
    hashes: Hashes | None = None,
) -> list[dict[str, Any]]:
    """Path, bytes, time and SHA-256 of each file that is read, or rows and fingerprint of a `datasets.Dataset`.

    Args:
        known: of an earlier run; files of the same path, size and time are not read again.
        hashes: of files that were read just now.
    """
    hashes = hashes or Hashes()
    seen = {
        (source.get("path"), source.get("bytes"), source.get("modified")): source["sha256"] for source in known or ()
    }
    facts: list[dict[str, Any]] = []
    for part in data if isinstance(data, list | tuple) else [data]:
        if is_dataset(part):
            facts.append({"path": None, "rows": len(part), "sha256": part._fingerprint})
            continue
        for file in _files(Path(part), split):
            stat, name = file.stat(), str(file.absolute())
            key = (name, stat.st_size, stat.st_mtime_ns)
            digest = seen.get(key) or hashes.of(file)
            facts.append({"path": name, "bytes": key[1], "modified": key[2], "sha256": digest})
    return facts


def bytes_of(data: Any, split: str | None = None) -> int:
    """The size of the files that are read."""
    parts = data if isinstance(data, list | tuple) else [data]
    return sum(file.stat().st_size for part in parts if not is_dataset(part) for file in _files(Path(part), split))


def check_unchanged(manifest: Mapping[str, Any], data: Any, split: str | None = None) -> None:
    """Raise InputError, with what differs, unless the data is still what a manifest of scores says was scored."""
    differing = changes(manifest, data, split)
    if differing:
        raise InputError(
            f"The data is not what was scored: {'; '.join(differing)}. Give the data that was scored (--data), or score"
            " this data anew."
        )


def changes(manifest: Mapping[str, Any], data: Any, split: str | None = None) -> list[str]:
    """In what the data differs from what was scored: files, their sizes and hashes; of a data set, its rows.

    Fingerprints of data sets are not compared: equal data sets of another process can have others.
    """
    then = list(manifest.get("sources") or ())
    now = sources_of(data, then, split)
    if any(source["path"] is None for source in [*then, *now]):
        rows = sum(source["rows"] for source in now) if all(source["path"] is None for source in now) else None
        scored = manifest.get("rows")
        return [f"{scored:,} rows then, {rows:,} now"] if None not in (rows, scored) and rows != scored else []
    return differences(then, now)


def differences(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which files differ, of those that were scored and those that are there; in words, empty where none does."""
    if len(then) == len(now):
        return [change for before, after in zip(then, now, strict=True) if (change := _change(before, after))]
    before, after = ({Path(source["path"] or "").name: source for source in side} for side in (then, now))
    lost = [f"{name} was scored and is not there" for name in before if name not in after]
    new = [f"{name} is there and was not scored" for name in after if name not in before]
    changed = [change for name in before if name in after and (change := _change(before[name], after[name]))]
    return [*lost, *new, *changed] or [f"{len(then)} files then, {len(now)} now"]


def _change(then: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    if then["sha256"] == now["sha256"]:
        return None
    name = now["path"] or "the data set"
    if then.get("bytes") != now.get("bytes"):
        return f"{name} has {now.get('bytes', 0):,} bytes, {then.get('bytes', 0):,} then"
    return f"{name} has other content (SHA-256 {then['sha256'][:12]}... then, {now['sha256'][:12]}... now)"


def _files(path: Path, split: str | None) -> list[Path]:
    if not path.exists():
        raise InputError(f"the data {path} does not exist; expected a file, a folder of shards or a saved dataset")
    if path.is_dir() and is_saved(path):
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [part.path for part in sources(path, split) if part.path is not None]
