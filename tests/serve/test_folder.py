"""Nothing outside of the folder is reached, and runs below it are found."""

import os
from datetime import date

import pytest

from vfl.errors import InputError
from vfl.serve import folder
from vfl.serve.folder import Run, file_in, file_of, runs
from vfl.serve.training import compare_training


@pytest.mark.parametrize(
    "place",
    [
        "..",
        "../outside/report.html",
        "a/../../outside/report.html",
        "/etc/passwd",
        "linked/report.html",
        "linked",
        "report.html",
        "half/metrics.jsonl",
        "circle",
        ".secret/report.html",
        "to-hidden.html",
        "a/\0",
        "nowhere",
    ],
)
def test_what_lies_outside_or_is_hidden_is_not_there(root, place):
    with pytest.raises(InputError, match="There is no"):
        file_in(root, place)


def test_what_is_inside_is_there_by_its_own_name_or_a_link(root):
    assert file_in(root, "a/report.html") == (root / "a" / "report.html").resolve()
    assert file_in(root, "within.html") == (root / "a" / "report.html").resolve()
    assert file_in(root, ".") == root.resolve()


def test_a_folder_that_is_itself_a_link_may_be_the_root(root, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(root)
    assert file_in(link, "a/report.html").is_file()
    assert "a" in [run.place for run in runs(link)]


def test_runs_are_found_by_their_files_and_links_are_not_followed(root):
    found = {run.place: run for run in runs(root)}
    assert found["a"] == Run("a", "training", report=True)
    assert found["deep/b"].kind == "training"
    assert found["maps/one"] == Run("maps/one", "map", report=False)
    assert not {"linked", "half", ".secret", "."} & set(found)


def test_a_run_says_its_model_and_the_day_it_was_written(root):
    os.utime(root / "a" / "metrics.jsonl", (2**31, 2**31))
    run = next(run for run in runs(root) if run.place == "a")
    assert (run.model, run.changed) == ("embedded", date.fromtimestamp(2**31).isoformat())
    for text in (b"\xff\xfe", b"model: [1", b"model: {id: x}"):
        (root / "a" / "settings.yaml").write_bytes(text)
        assert next(run for run in runs(root) if run.place == "a").model == ""


def test_no_more_runs_than_a_page_holds(root, monkeypatch):
    monkeypatch.setattr(folder, "MOST", 2)
    assert len(runs(root)) == 2


def test_a_run_whose_file_leads_outside_is_not_read(root):
    with pytest.raises(InputError, match="There is no"):
        file_of(root, "half", "metrics.jsonl")
    assert file_of(root, "a", "evaluation.json") is None
    with pytest.raises(InputError, match="There is no"):
        compare_training(root, ["a", "half"])
