"""Relative links of pages that are read in the repository lead somewhere; those of the site are mkdocs's to check."""

import re
from pathlib import Path

import pytest
from pages import ROOT
from pages_from_code import repository

FILES = ["README.md", *repository.TAKEN]


def anchors(page: Path) -> set[str]:
    """The anchors of a Markdown file's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", FILES)
def test_links_lead_somewhere(name):
    file = ROOT / name
    for target in repository.relative_links(file):
        path, _, anchor = target.partition("#")
        there = (file.parent / path).resolve() if path else file
        assert there.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in anchors(there), f"{name} links to {target}"


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 180
    for table in ("Which layers to train", "Choosing data"):
        assert f"<!-- table: {table} -->" in text
        assert f"<!-- end of table: {table} -->" in text


def test_links_out_of_the_site_become_words(tmp_path, monkeypatch):
    (tmp_path / "CONTRIBUTING.md").write_text(
        "[a](docs/faq.md#x) [b](vfl/errors.py) [c](https://x.org) ![d](docs/d.png)"
    )
    monkeypatch.setattr(repository, "ROOT", tmp_path)
    assert repository.page("CONTRIBUTING.md") == "[a](faq.md#x) b [c](https://x.org) ![d](d.png)"
