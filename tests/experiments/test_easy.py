"""The pool out of a public data set."""

from pathlib import Path

import pytest

from experiments.selection import easy
from vfl.errors import InputError


def test_kinds_are_told_by_the_answer() -> None:
    assert [easy.kind_of(answer) for answer in ("no", "triangle", "teal")] == ["yes or no", "shape", "colour"]


def test_without_the_package_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(easy, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install --no-deps easy-vqa==1\.0"):
        easy.write_easy(tmp_path / "pool", 0)
    assert not list(tmp_path.iterdir())
