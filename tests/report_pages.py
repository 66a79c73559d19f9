"""What a report's page holds for those who take its figures away: numbers, and the script that saves pictures."""

import csv
import io
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import vfl.report

DRAWING = (Path(vfl.report.__file__).parent / "drawing.js").read_text(encoding="utf-8")
# Labels of axes that run into each other or are cut off at the left, counted by the page itself.
CROWDED = """(() => { let n = 0;
  for (const plot of document.querySelectorAll(".plot")) for (const kind of [".x", ".y"]) {
    const boxes = [...plot.querySelectorAll(":scope > " + kind)].filter(e => e.getClientRects().length)
      .map(e => [e.getBoundingClientRect(), getComputedStyle(e).transform.includes("matrix(0.8")]);
    boxes.forEach(([a, turned], at) => { if (a.left < 0) n++;
      for (const [b] of turned ? [] : boxes.slice(at + 1))
        if (a.left < b.right + 1 && b.left < a.right + 1 && a.top < b.bottom && b.top < a.bottom) n++; });
    const turned = boxes.filter(([, turned]) => turned).map(([box]) => box.right);
    turned.slice(1).forEach((right, at) => { if (right - turned[at] < 16) n++; });
  } return n })()"""
NEVER_CLOSED = ("meta", "img", "input", "br")


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, set[str]]] = []
        self.scripts: list[str] = []
        self.links: list[tuple[str, str]] = []
        self.figures = self.without = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = dict(attrs)
        classes = set((of.get("class") or "").split())
        around = {name for _, names in self.open for name in names}
        self.figures += "figure" in classes
        if tag == "svg" and of.get("role") == "img":
            self.without += "figure" not in around and "strip" not in around  # an example's strip is no figure
        if tag == "a" and "download" in of:
            assert {"files", "figure"} <= around
            self.links.append((of["download"] or "", of["href"] or ""))
        if tag == "script":
            self.scripts.append("")
        if tag not in NEVER_CLOSED:
            self.open.append((tag, classes))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1][0] == "script":
            self.scripts[-1] += data


def sheets(page: str) -> dict[str, list[list[str]]]:
    """The numbers of each figure, by its file's name: a row of headings, then the rows."""
    start = "data:text/csv;charset=utf-8,"
    links = _Page(page).links
    assert all(name.endswith(".csv") and address.startswith(start) for name, address in links)
    assert len(dict(links)) == len(links), "two figures would have one name"
    texts = {name.removesuffix(".csv"): unquote(address.removeprefix(start)) for name, address in links}
    assert all(text.endswith("\r\n") for text in texts.values())
    found = {name: list(csv.reader(io.StringIO(text, newline=""))) for name, text in texts.items()}
    assert all(len({len(row) for row in rows}) == 1 for rows in found.values()), "ragged"
    return found


def column(rows: list[list[str]], heading: str) -> list[float | None]:
    """One column's numbers."""
    place = rows[0].index(heading)
    return [float(row[place]) if row[place] else None for row in rows[1:]]


def figures(page: str) -> tuple[int, int]:
    """How many figures there are, and how many drawings that lie in none."""
    found = _Page(page)
    return found.figures, found.without


def scripts(page: str) -> list[str]:
    """The text of every script element."""
    return _Page(page).scripts
