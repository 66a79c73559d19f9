"""The notebooks: whole ones run in a kernel and show what they say; of one the first cells run in every suite."""

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from pages import ROOT
from pages_from_code import notebooks

NOTEBOOKS = ("find", "train", "choose")
FIRST = 5  # cells that need no model


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def run(notebook: nbformat.NotebookNode, folder: Path, monkeypatch) -> list[nbformat.NotebookNode]:
    """The code cells with their outputs."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TMPDIR", str(folder))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: nbformat.NotebookNode) -> set[str]:
    """The kinds of what a cell shows."""
    return {kind for output in cell.outputs for kind in output.get("data", {})}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_without_outputs_and_says_what_it_needs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    first, *others = notebook.cells
    assert first.cell_type == "markdown"
    assert "pip install" in first.source
    code = [cell for cell in others if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    for cell in code:
        ast.parse(cell.source)
    assert any(".plot(" in cell.source for cell in code)


def test_those_that_there_are_are_these():
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == sorted(NOTEBOOKS)


def test_the_first_cells_run_and_show_pictures(tmp_path, monkeypatch):
    notebook = read("find")
    notebook.cells = notebook.cells[:FIRST]
    _, first, second = run(notebook, tmp_path, monkeypatch)
    assert "How many" in first.outputs[0].text
    assert "image/png" in shown(first) & shown(second)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_whole_notebook_runs_and_its_results_show_themselves(name, tmp_path, monkeypatch):
    cells = run(read(name), tmp_path, monkeypatch)
    drawn = [cell for cell in cells if ".plot(" in cell.source]
    assert drawn
    assert all("image/png" in shown(cell) for cell in drawn)
    tables = [cell for cell in cells if "text/html" in shown(cell)]
    assert len(tables) >= 2


def test_the_site_has_a_page_of_each_with_all_its_text_and_code():
    assert set(notebooks.pages()) == {f"notebooks/{name}.md" for name in NOTEBOOKS}
    for name in NOTEBOOKS:
        page = notebooks.page(name)
        assert all(line in page for cell in read(name).cells for line in cell.source.splitlines())
        assert f"(notebooks/{name}.md)" in notebooks.table()


def test_buttons_for_colab_are_made_of_the_repository_s_address(monkeypatch):
    link = "https://colab.research.google.com/github/some-body/vfl/blob/main/notebooks/find.ipynb"
    for address in ("https://github.com/some-body/vfl", "https://github.com/some-body/vfl.git"):
        assert f"({link})" in notebooks.button("find", address)
    assert notebooks.button("find", None) == notebooks.button("find", "https://example.org/vfl") == ""
    monkeypatch.setattr(notebooks, "repository", lambda: "https://github.com/some-body/vfl")
    assert f"({link})" in notebooks.table()
    assert "git+https://github.com/some-body/vfl" in notebooks.table()
    assert notebooks.page("find").splitlines()[2].startswith("[Open in Colab]")
