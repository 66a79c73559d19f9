"""The layout's promises: real folders, and nothing at the root that shadows a module."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import warm

ROOT = Path(__file__).parents[1]


def python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_standard_library_works_from_the_root():
    done = python("import select, subprocess, asyncio; select.select([], [], [], 0); print(select.__name__)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "select"


@pytest.mark.parametrize("folder", ["train", "select", "tests", "recipes", "bench"])
def test_no_folder_at_the_root_is_a_package(folder):
    assert not (ROOT / folder / "__init__.py").exists()


def test_no_symbolic_link_is_tracked():
    """A checkout without links (Windows, a zip file) would lack what lies behind them."""
    listed = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line for line in listed.splitlines() if line.startswith("120000")] == []


@pytest.mark.parametrize("folder", ["train", "select"])
def test_no_file_there_shadows_a_module(folder):
    """A script run by its path puts its folder first on the path."""
    for path in (ROOT / folder).glob("*.py"):
        outside = importlib.util.find_spec(path.stem)
        assert outside is None or Path(outside.origin or "").parent == path.parent, f"{path} shadows {outside}"


def test_importing_the_package_does_not_wait_for_torch():
    done = python("import sys, vfl; print('torch' in sys.modules)")
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "first", ["vfl", "vfl.locate.run", "vfl.train.recipe", "vfl.measure.config, vfl.evaluate.items", "vfl.engine.sweep"]
)
def test_public_names_are_there_whatever_was_imported_first(first):
    code = f"""
import {first}
import vfl, inspect
assert all(hasattr(vfl, name) for name in vfl.__all__)
assert all(callable(getattr(vfl, name)) for name in vfl.__all__ if name != "__version__")
assert list(inspect.signature(vfl.locate).parameters)[:2] == ["model", "out"]
import vfl.train.run as trained
assert trained.train and vfl.locate.run.locate
"""
    done = warm.finished(["-c", code])
    assert done.returncode == 0, done.stderr
