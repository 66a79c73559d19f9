"""The numbers of figures as CSV: in full, as RFC 4180 has it, and without formulas."""

import csv
import io
import math
from urllib.parse import unquote

import pytest

from vfl.report.bars import histogram_of
from vfl.report.charts import PLAIN, inks
from vfl.report.cloud import Cloud, cloud_chart
from vfl.report.dots import Dot, dot_sheet
from vfl.report.heat import heat_chart
from vfl.report.lines import Panel, Series, chart
from vfl.report.scatter import Point, scatter
from vfl.report.sheet import Sheet
from vfl.report.words import SHARE


def read(sheet: Sheet) -> list[list[str]]:
    text = unquote(sheet.address.removeprefix("data:text/csv;charset=utf-8,"))
    assert text == sheet.csv
    return list(csv.reader(io.StringIO(text, newline="")))


def test_numbers_are_whole_and_what_is_not_drawn_is_empty():
    values = [1 / 3, -1e-17, 0.1 + 0.2, None, math.nan, math.inf, 12]
    (_, row) = read(Sheet("a", [str(n) for n in range(7)], [values]))
    assert [float(cell) for cell in row[:3]] == values[:3]
    assert row[3:] == ["", "", "", "12"]


@pytest.mark.parametrize(
    "text", ['a "quoted", b', "two\r\nlines", "100 % #1 & <b>", "Größe, 層", "plain", " a=1", "'", "x+y", "a\tb"]
)
def test_texts_come_back_as_they_were(text):
    assert read(Sheet(text, [text], [[text]])) == [[text], [text]]
    assert Sheet("t", ["a"], [[text]]).csv.endswith("\r\n")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://a","b")'])
def test_no_text_is_a_formula(text):
    assert read(Sheet(text, [text], [[text, -1.0]])) == [[f"'{text}"], [f"'{text}", "-1.0"]]


def test_an_address_holds_nothing_that_ends_it_or_is_dropped_from_it():
    address = Sheet("t", ["a"], [['"<>#%& \n\t\\é']]).address
    assert not set('"<># \n\t\\&é') & set(address.partition(",")[2])


@pytest.mark.parametrize(
    ("title", "name"),
    [("Loss", "loss"), ("a/b: c", "a-b-c"), ("../../x", "x"), ("層", "figure"), ("a " * 99, "a-" * 29 + "a")],
)
def test_files_have_plain_names(title, name):
    assert Sheet(title, [], []).name == name[:60].strip("-")


def test_lines_of_different_places_share_a_table():
    lines = [
        Series("a", [0, 2, 2], [0.25, None, 0.5], [0.1, None, 0.2], [0.3, None, 0.9]),
        Series("b", [2, 3], [1.0, 0.0]),
    ]
    drawn = chart(Panel("", "step", SHARE, lines, {"chance": 0.5}))
    assert drawn is not None
    assert drawn.sheet.headings == [
        "step",
        "a (share)",
        "a low (share)",
        "a high (share)",
        "b (share)",
        "chance (share)",
    ]
    assert drawn.sheet.rows == [
        [0, 0.25, 0.1, 0.3, None, 0.5],
        [2, None, None, None, 1.0, 0.5],
        [2, 0.5, 0.2, 0.9, None, 0.5],
        [3, None, None, None, 0.0, None],
    ]
    named = chart(Panel("t", "window", "nats", [Series("a", [0, 1], [1.0, 2.0])], places=["early", "late"]))
    assert named is not None
    assert (named.sheet.title, named.sheet.rows) == ("t nats", [["early", 1.0], ["late", 2.0]])


def test_every_other_kind_has_what_it_draws():
    heat = heat_chart("t", [[0.1, None], [1 / 3, 2.0]], ("step", [5, 10]), ("layer", [3, 4]))
    assert heat is not None
    assert heat.sheet.headings == ["step", "layer 3", "layer 4"]
    assert heat.sheet.rows == [[5, 0.1, None], [10, 1 / 3, 2.0]]
    cloud = cloud_chart(
        Cloud("heads", "mass", "score", {"early": [(0.1, 0.2, "layer 0, head 1: mass 0.1")], "late": []})
    )
    assert cloud is not None
    assert cloud.sheet.headings == ["group", "point", "mass", "score"]
    assert cloud.sheet.rows == [["early", "layer 0, head 1", 0.1, 0.2]]
    points = scatter("new", "cost", [Point("=a", (1, 0, 2), (4, 3, 5), "")])
    assert points is not None
    assert points.sheet.headings == ["name", "cost", "cost low", "cost high", "new", "new low", "new high"]
    assert points.sheet.rows == [["=a", 1, 0, 2, 4, 3, 5]]
    bars = histogram_of("t", PLAIN, {1: (4, 1), 0: (9, 0)}, 2, (0.0, 1.0), chosen=True)
    assert (bars.sheet.headings[2:], bars.sheet.rows) == (["rows", "chosen rows"], [[0.0, 0.5, 9, 0], [0.5, 1.0, 4, 1]])
    plain = histogram_of("t", PLAIN, {1: (4, 1)}, 2, (0.0, 1.0), chosen=False)
    assert (plain.sheet.headings, plain.sheet.rows) == (["from", "to", "rows"], [[0.5, 1.0, 4]])
    assert dot_sheet("t", [Dot("a", SHARE, 0.5, 0.4, None, 8)]).rows == [["a", "share", 0.5, 0.4, None, 8]]


def test_every_ink_has_its_property():
    assert {ink.css for ink in inks([str(n) for n in range(9)]).values()} == {f"var(--c{n})" for n in range(1, 9)}
