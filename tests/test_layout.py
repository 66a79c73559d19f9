"""The layout's promises: nothing at the root shadows a module, both folders import under the package's name."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def python(code, **kwargs):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, **kwargs)


def test_the_standard_library_works_from_the_root():
    done = python("import select, subprocess, asyncio; select.select([], [], [], 0); print(select.__name__)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "select"


@pytest.mark.parametrize("folder", ["train", "select", "tests", "recipes", "bench"])
def test_no_folder_at_the_root_is_a_package(folder):
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize("folder", ["train", "select"])
def test_folders_import_under_the_package(folder):
    link = ROOT / "vfl" / folder
    assert link.is_symlink()
    assert os.readlink(link) == f"../{folder}"
    assert python(f"import vfl.{folder}").returncode == 0


@pytest.mark.parametrize("folder", ["train", "select"])
def test_no_file_there_shadows_a_module(folder):
    """A script run by its path puts its folder first on the path."""
    for path in (ROOT / folder).glob("*.py"):
        outside = importlib.util.find_spec(path.stem)
        assert outside is None or Path(outside.origin or "").parent == path.parent, f"{path} shadows {outside}"


def test_importing_the_package_does_not_wait_for_torch():
    done = python("import sys, vfl; print('torch' in sys.modules)")
    assert done.stdout.strip() == "False"


def test_public_names_are_there_whatever_was_imported_first():
    code = """
import vfl.localize, vfl.locating.sweeping, vfl.engine.sweep, vfl
assert all(hasattr(vfl, name) for name in vfl.__all__)
assert callable(vfl.locate) and callable(vfl.sweep) and callable(vfl.load) and callable(vfl.prefill)
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
