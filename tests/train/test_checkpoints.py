"""What counts as a checkpoint, and what of it is removed."""

import pytest

from vfl.train.checkpoints import STATE, WRITING, _rotate, checkpoints, clear_leftovers


@pytest.fixture
def folder(tmp_path):
    """Three complete checkpoints, and much that is none."""
    for name in ("checkpoint-2", "checkpoint-10", "checkpoint-9", "checkpoint-best", f"{WRITING}/checkpoint-12"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / STATE).write_text("{}")
    (tmp_path / "checkpoint-11").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    return tmp_path


def names(folder):
    return [path.name for path in checkpoints(folder)]


def test_only_complete_ones_count_by_their_step(folder):
    assert names(folder) == ["checkpoint-2", "checkpoint-9", "checkpoint-10"]
    assert names(folder / "nowhere") == []


@pytest.mark.parametrize(
    ("limit", "best", "kept"),
    [
        (None, None, ["checkpoint-2", "checkpoint-9", "checkpoint-10"]),
        (2, None, ["checkpoint-9", "checkpoint-10"]),
        (1, None, ["checkpoint-10"]),
        (2, "checkpoint-2", ["checkpoint-2", "checkpoint-10"]),
        (1, "checkpoint-2", ["checkpoint-2", "checkpoint-10"]),
    ],
)
def test_the_oldest_go_but_never_the_newest_or_the_best(folder, limit, best, kept):
    _rotate(folder, folder / WRITING, limit, best and str(folder / best))
    assert names(folder) == kept


def test_only_leftovers_are_cleared(folder):
    (folder / ".adapter.12.tmp").mkdir()
    (folder / ".adapter.12.old").mkdir()
    (folder / ".preflight.json.12.tmp").write_text("half")
    clear_leftovers(folder, folder / "nowhere")
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint-2",
        "checkpoint-9",
        "checkpoint-10",
        "checkpoint-11",
        "checkpoint-best",
        "notes.txt",
    }
