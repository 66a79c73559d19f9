"""A package that can be called: always a package and always its function, whatever was imported before."""

import importlib
import inspect
import sys
from types import ModuleType

import pytest

INIT = '''"""Counts."""

from vfl.callable_package import make_callable

make_callable(__name__)
'''
RUN = '''
def tally(number: int, *, by: int = 1) -> int:
    """What comes next."""
    return number + by
'''


@pytest.fixture
def parent(tmp_path, monkeypatch):
    """The name of a fresh package with the callable package `tally` in it."""
    name = f"counted_{tmp_path.name}".replace("-", "_")
    folder = tmp_path / name / "tally"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder / "__init__.py").write_text(INIT)
    (folder / "run.py").write_text(RUN)
    (folder / "beads.py").write_text("COLOUR = 'red'\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


@pytest.mark.parametrize("first", ["tally", "tally.run", "tally.beads"])
def test_it_is_both_whatever_is_imported_first(parent, first):
    importlib.import_module(f"{parent}.{first}")
    tally = importlib.import_module(parent).tally
    assert isinstance(tally, ModuleType)
    assert (tally(3), tally(3, by=2)) == (4, 5)
    assert importlib.import_module(f"{parent}.tally.beads").COLOUR == "red"
    assert importlib.import_module(f"{parent}.tally") is tally
    assert tally(3) == 4, "still, after more imports"


def test_its_module_is_imported_by_the_first_call(parent):
    tally = importlib.import_module(f"{parent}.tally")
    assert f"{parent}.tally.run" not in sys.modules
    tally(1)
    assert f"{parent}.tally.run" in sys.modules


def test_it_shows_the_functions_signature_and_the_packages_text(parent):
    tally = importlib.import_module(f"{parent}.tally")
    function = importlib.import_module(f"{parent}.tally.run").tally
    assert inspect.signature(tally) == inspect.signature(function)
    assert inspect.getdoc(tally) == "Counts."
    with pytest.raises(TypeError, match="unexpected keyword argument 'of'"):
        tally(1, of=2)


def test_a_function_that_was_replaced_is_the_one_called(parent, monkeypatch):
    """So that a test can stand in for it."""
    tally = importlib.import_module(f"{parent}.tally")
    monkeypatch.setattr(importlib.import_module(f"{parent}.tally.run"), "tally", lambda: "another")
    assert tally() == "another"


def test_a_package_without_the_function_says_so(parent, tmp_path):
    (tmp_path / parent / "tally" / "run.py").write_text("def count(): ...\n")
    importlib.invalidate_caches()
    with pytest.raises(AttributeError, match="tally"):
        importlib.import_module(f"{parent}.tally")()


def test_other_packages_stay_as_they_are(parent):
    importlib.import_module(f"{parent}.tally")
    assert not callable(importlib.import_module(parent))
    assert not callable(importlib.import_module("json"))
