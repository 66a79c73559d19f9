"""Light and dark: both have every colour that a page uses, and both are legible."""

import itertools
import re
from pathlib import Path

import pytest

import vfl
from vfl.report.charts import COLOURS, PROPERTIES

ROOM = Path(vfl.__file__).parent
CSS = (ROOM / "report" / "page.css").read_text(encoding="utf-8")
STYLED = [*ROOM.rglob("*.html.jinja"), *ROOM.rglob("*.css")]
LENGTHS = {"--gutter"}
TEXTS = ("--ink", "--muted", "--link", "--warn", "--source")
LINES = (*PROPERTIES.values(), "--mark", "--grey", "--pale", "--muted")


def properties(start: str) -> dict[str, str]:
    block = CSS[CSS.index(start) :]
    return dict(re.findall(r"(--[\w-]+): ([^;]+);", block[: block.index("}")]))


LIGHT, DARK = properties(":root {"), properties("html:not(.light) {")


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2 has it."""
    full = "".join(2 * digit for digit in colour[1:]) if len(colour) == 4 else colour[1:]
    parts = (int(full[n : n + 2], 16) / 255 for n in (0, 2, 4))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_both_define_what_is_used():
    used = {name for path in STYLED for name in re.findall(r"var\((--[\w-]+)\)", path.read_text(encoding="utf-8"))}
    used |= set(PROPERTIES.values())
    assert used - LENGTHS <= LIGHT.keys()
    assert DARK.keys() == LIGHT.keys() - LENGTHS
    assert LIGHT.keys() == used, "a property that nothing uses"


def test_every_page_says_that_it_has_both():
    assert 'name="color-scheme" content="light dark"' in (ROOM / "report" / "head.html.jinja").read_text()
    pages = [text for path in STYLED if "<!DOCTYPE" in (text := path.read_text(encoding="utf-8"))]
    assert len(pages) == 7
    for text in pages:
        assert ('include "head.html.jinja"' in text) or ('content="light dark"' in text)
        assert 'include "page.css"' in text


def test_on_paper_a_page_has_the_colours_of_figures():
    assert {name: LIGHT[name].lower() for name in PROPERTIES.values()} == {
        name: colour.lower() for colour, name in PROPERTIES.items()
    }


@pytest.mark.parametrize("ground", [LIGHT, DARK], ids=["light", "dark"])
def test_lines_and_texts_stand_out_from_the_ground(ground):
    for name in LINES:
        assert contrast(ground[name], ground["--ground"]) >= 3, name
    for name in TEXTS:
        assert contrast(ground[name], ground["--ground"]) >= 4.5, name
    for name in ("--ink", "--warn"):
        assert contrast(ground[name], ground["--notice"]) >= 4.5, name
    assert contrast(ground["--link"], ground["--pressed"]) >= 4.5


def test_no_two_lines_are_alike():
    for ground in (LIGHT, DARK):
        colours = [ground[f"--c{n}"] for n in range(1, len(COLOURS) + 1)]
        for a, b in itertools.combinations(colours, 2):
            assert sum(abs(int(a[n : n + 2], 16) - int(b[n : n + 2], 16)) for n in (1, 3, 5)) > 60, (a, b)


def test_pages_name_colours_by_their_property():
    """What is drawn over photographs has one colour on both grounds."""
    for path in STYLED:
        text = re.sub(r"--[\w-]+: #\w+;", "", path.read_text(encoding="utf-8"))
        lines = [line for line in text.splitlines() if ".lens-picture" not in line]
        assert re.findall(r"(?<![&\w])#[0-9a-fA-F]{3,8}\b", "\n".join(lines)) == [], path
