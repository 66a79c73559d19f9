"""Who works on what, agreed on through files in a folder that all processes see: one machine, or many on a shared disk.

A claim is a file that only one process can create. Its owner touches it as long as it lives; one whose process is gone,
or that stands still for `expiry` seconds, is dead, and whoever creates the file's next generation first has it. Clocks
are not compared: each observer times by its own clock how long a file stands still.

Claims save work and do not guard results: two processes that take one claim (a stalled one that wakes up, a disk that
shows files late) write the same result, each whole, one over the other.
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

logger = logging.getLogger(__name__)

BEATS = 5
"""Signs of life within an expiry."""


class Claims:
    """Claims in `folder` of this process.

    Args:
        folder: made when the first claim is.
        expiry: seconds.
    """

    def __init__(self, folder: Path, expiry: float) -> None:
        self.folder, self.expiry = folder, expiry
        self._seen: dict[str, tuple[int, float]] = {}  # file -> its time when last looked at, since when by our clock

    @contextmanager
    def hold(self, name: str) -> Iterator[bool]:
        """Whether `name` is this process's now; then it is until the end, unless the process stops living."""
        path = self._take(name)
        if path is None:
            yield False
            return
        done = threading.Event()
        beating = threading.Thread(target=self._beat, args=(path, done), daemon=True)
        beating.start()
        try:
            yield True
        finally:
            done.set()
            beating.join()
            for generation, file in self._generations(name):
                if generation <= int(path.suffix[1:]):
                    file.unlink(missing_ok=True)

    def held(self, kind: str) -> set[str]:
        """Names beginning with `kind` that some process has, or had when it died."""
        return {file.stem for file in self.folder.glob(f"{kind}*")}

    def _take(self, name: str) -> Path | None:
        generations = self._generations(name)
        last, file = max(generations, default=(-1, None))
        if file is not None and not self._is_dead(file):
            return None
        path = self.folder / f"{name}.{last + 1}"
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        # Another was faster, or all is done and the folder was removed just now.
        except (FileExistsError, FileNotFoundError):
            return None
        started = psutil.Process().create_time()
        try:
            with os.fdopen(handle, "w") as stream:
                json.dump({"host": socket.gethostname(), "pid": os.getpid(), "started": started}, stream)
        except OSError:  # a full disk: a claim that says nothing would keep others waiting
            path.unlink()
            raise
        if file is not None:
            logger.warning("%s was given up by its process and is taken over", name)
        return path

    def _generations(self, name: str) -> list[tuple[int, Path]]:
        return [(int(file.suffix[1:]), file) for file in self.folder.glob(f"{name}.*")]

    def _is_dead(self, file: Path) -> bool:
        try:
            modified = file.stat().st_mtime_ns
            owner = json.loads(file.read_text() or "{}")
        except (FileNotFoundError, ValueError):  # given back, or being written
            return False
        if owner.get("host") == socket.gethostname() and not _lives(owner["pid"], owner["started"]):
            return True
        now = time.monotonic()
        before, since = self._seen.get(file.name, (None, now))
        if before != modified:
            self._seen[file.name] = modified, now
            return False
        return now - since > self.expiry

    def _beat(self, path: Path, done: threading.Event) -> None:
        while not done.wait(self.expiry / BEATS):
            try:
                os.utime(path)
            except FileNotFoundError:
                return


def _lives(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        # Its number may have been given to another process since. A zombie is dead.
        return abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
