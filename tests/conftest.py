"""Fixtures that several test folders share."""

import copy
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.mark.expression import Expression

if TYPE_CHECKING:
    from vfl.models.vlm import VLM

# Before transformers is imported: a test that reaches for the hub is wrong, and should fail rather than wait.
os.environ["HF_HUB_OFFLINE"] = "1"
# Every process that a test starts would compile the library anew, and much of what it stands on.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# `tiny` is imported from here. At the end of the path, so that no folder of tests shadows a module.
sys.path.append(str(Path(__file__).parent))

MEMORY = Path("/dev/shm")
ENOUGH = 8 * 2**30
"""Bytes that have to be free there; the tests take a small part of them."""


def _keep_files_in_memory() -> None:
    """On a disk each file that a test removes, or sees safely written, takes some milliseconds, and there are many."""
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK):
        return
    room = os.statvfs(MEMORY)
    free = min(room.f_bavail * room.f_frsize, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    if free > ENOUGH and not room.f_flag & os.ST_NOEXEC:  # tests write scripts, and start them
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


_keep_files_in_memory()


def pytest_configure(config: pytest.Config) -> None:
    """All workers ask the same warm Python, and are forks of it themselves: what takes long is imported once.

    A GPU is seen by the tests that are about one (`-m gpu`) alone: the others compare with numbers of the processor.
    """
    asked = Expression.compile(config.getoption("markexpr") or "any")
    if asked.evaluate(lambda name, **_: False) or not asked.evaluate(lambda name, **_: name == "gpu"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if number := config.getoption("numprocesses", None):
        import warm

        config.option.tx = [f"popen//python={warm.python()}"] * number


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where prepared rows lie, for this session alone."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["VFL_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint folder of a tiny family (a key of `tiny.ALL`), built once a session; read it, do not write."""
    import tiny

    folders: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in folders:
            folders[family] = tiny.build(family, tmp_path_factory.mktemp(family))
        return folders[family]

    return folder


@pytest.fixture(scope="session")
def loaded(tiny_folder: Callable[[str], Path]) -> "Callable[..., VLM]":
    """loaded(family, ...) -> `vfl.load` of a tiny family, None for the embedded model.

    It is read and checked once a session; what each call gives is a copy of its own.
    """
    import vfl

    known: dict[tuple[Any, ...], VLM] = {}

    def load(family: str | None, **options: Any) -> "VLM":
        key = (family, *sorted(options.items()))
        if key not in known:
            known[key] = vfl.load(None if family is None else tiny_folder(family), **options)
        vlm = known[key]
        return copy.deepcopy(vlm, {id(vlm.family): vlm.family})

    return load


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: a whole file runs in one process, which would go on alone after the others."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """What is imported by now stays: a search for garbage, of which each training run makes several, may skip it."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Python's own end finds everything as it expects it; files in memory are for looking at what failed."""
    gc.unfreeze()
    folder = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    if exitstatus == 0 and not hasattr(session.config, "workerinput") and MEMORY in folder.parents:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """With VFL_REQUIRE_TOOLS set, a test that needs a browser or a compiler fails where it would skip."""
    report = yield
    if report.skipped and item.get_closest_marker("tool") and os.environ.get("VFL_REQUIRE_TOOLS"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, but VFL_REQUIRE_TOOLS is set: {report.longrepr}"
    return report
