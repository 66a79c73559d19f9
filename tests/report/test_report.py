"""The report is one file, whole, escaped and self-contained; the figure is what a paper takes."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from report_pages import DRAWING, column, figures, scripts, sheets

from vfl.functionmap import OffManifold, RandomWeights
from vfl.locate.report.examples import examples
from vfl.locate.report.page import render_report
from vfl.locate.report.write import write_report
from vfl.report import charts
from vfl.report.thumbnail import THUMBNAIL
from vfl.report.words import headline, interval, layer_list, percent


class Elements(HTMLParser):
    """Every element with its attributes, and the text outside <style> and <script>."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if not self.tags or self.tags[-1][0] not in ("style", "script"):
            self.text += data


@pytest.fixture(scope="session")
def page(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report")
    path, picture = write_report(out, finished.fmap, finished.records, finished.pairs, planted={"counting": [6, 7]})
    assert sorted(out.iterdir()) == sorted([path, picture])
    return path.read_text(encoding="utf-8")


def test_nothing_from_data_becomes_markup(page: str) -> None:
    elements = Elements(page)
    assert scripts(page) == [DRAWING]
    assert "<b>cubes" not in page
    assert not [name for _, attrs in elements.tags for name in attrs if name.startswith("on")]
    # The hostile texts are shown, as text.
    assert "<script>document.title='owned'</script>" in elements.text
    assert "<b>cubes</b>\"' are there & where?" in elements.text
    assert "onerror=" in elements.text


def test_the_report_says_how_sure_the_layers_are(page: str, finished: Any) -> None:
    text = Elements(page).text
    counting = finished.fmap.functions["counting"]
    assert counting.layer_null.in_words().capitalize() in text
    assert "No layer stands out from exchangeable layers" in text
    assert "<title>counting, layer 6: read (at most" in page
    assert "<title>counting, layer 3: undecided (at most 11\u00a0% of the answers)</title>" in page
    assert page.count('<rect class="not-read"') == sum(
        entry.equivalence.states.count("not read") for entry in finished.fmap.functions.values()
    )
    assert f"{counting.deletion.at_most[0]} of 48 pairs" in text
    older = {"layer_null": None, "deletion": None, "equivalence": None}
    functions = {name: entry.model_copy(update=older) for name, entry in finished.fmap.functions.items()}
    plain = render_report(finished.fmap.model_copy(update={"functions": functions}), {})
    assert "stands out</li>" not in plain
    assert "Lost without" not in plain
    assert 'class="states"' not in plain


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    for tag, attrs in Elements(page).tags:
        for name in ("src", "href", "srcset", "data", "xlink:href", "poster", "action"):
            value = attrs.get(name)
            assert value is None or value.startswith(("data:image/", "data:text/csv;")), (tag, value)
    assert "@import" not in page
    assert "url(" not in page
    assert "default-src 'none'" in page
    assert len(page) < 400_000


def test_the_numbers_of_every_figure_are_those_that_it_draws(page: str, finished: Any) -> None:
    found = sheets(page)
    assert figures(page) == (len(found), 0)
    curves, rates = found["answers-changed"], found["layer-by-function"]
    for name, entry in finished.fmap.functions.items():
        slug = "-".join(re.findall("[a-z0-9]+", name.lower()))
        own = found[f"{slug}-by-layer"]
        layers = [own[0], *own[1 : 1 + finished.fmap.model.num_layers]]
        assert column(curves, f"{name} (share)") == column(rates, f"{name} (share)") == entry.changed
        assert [column(curves, f"{name} {end} (share)") for end in ("low", "high")] == [entry.ci_low, entry.ci_high]
        for heading, curve in (
            ("changed (share)", entry.changed),
            ("turned to the source's answer (share)", entry.followed_source),
            ("changed by the control swap (share)", entry.control),
        ):
            if curve:
                assert column(layers, heading) == curve
                assert f'd="{charts.line(column(layers, heading))}"' in page
        assert [row[2] == "yes" for row in layers[1:]] == [k in entry.layers for k in range(len(entry.changed))]
        blocks = own[len(layers) :]
        assert [(int(row[0]), int(row[1])) for row in blocks] == [(b.layers[0], b.layers[-1]) for b in entry.blocks]
        assert column([own[0], *blocks], "changed (share)") == [block.changed for block in entry.blocks]
        if entry.logprob_effect:
            drop = found[f"{slug}-log-odds-drop"]
            assert column(drop, "log-odds drop (nats)") == entry.logprob_effect


def test_the_numbers_of_what_a_map_may_have_are_there_too(finished: Any) -> None:
    """Random weights, and how far swapped states lie from ordinary ones; a layer without a value is an empty cell."""
    depth = finished.fmap.model.num_layers
    curve = [None, *(k / 37 for k in range(1, depth))]
    more = {
        "off_manifold": OffManifold(ratio=curve, high=curve, pairs=4, states=9),
        "random_weights": RandomWeights(seed=0, layers=[], changed=curve, control=None),
    }
    entries = {"counting": finished.fmap.functions["counting"].model_copy(update=more)}
    page = render_report(finished.fmap.model_copy(update={"functions": entries}), {})
    found = sheets(page)
    assert figures(page) == (len(found), 0)
    assert column(found["counting-by-layer"], "changed, random weights (share)")[:depth] == curve
    assert f'd="{charts.line(curve)}"' in page
    distances = column(found["counting-distance"], "distance of swapped states, ordinary ones 1")
    assert distances == curve


def test_every_function_has_its_row_curve_heat_and_examples(page: str, finished: Any) -> None:
    text = Elements(page).text
    for name, entry in finished.fmap.functions.items():
        assert text.count(name) >= 4
        for warning in entry.warnings:
            assert warning in text
    assert "From shallow to deep: recognition → counting → grounding" in text
    assert "precision 100\u00a0% (1 of 1 found), recall 50\u00a0% (1 of 2 planted)" in text
    assert "distributed" in text
    assert "Tested against a floor" in text
    depth = finished.fmap.model.num_layers
    assert page.count("<title>counting, layer") == 2 * depth, "its rate in the heat map, its state below the chart"
    assert "cd" * 32 in text
    assert "choice.cap" in text


def test_a_report_without_pictures_or_examples_still_stands(finished: Any, tmp_path: Path) -> None:
    path, _ = write_report(tmp_path, finished.fmap, finished.records, examples_per_function=0)
    bare = path.read_text(encoding="utf-8")
    assert "<img" not in bare
    assert "Examples" not in Elements(bare).text
    pq.write_table(finished.records, tmp_path / "pairs.parquet")
    write_report(tmp_path, finished.fmap, tmp_path / "pairs.parquet", [])
    assert "<img" not in path.read_text(encoding="utf-8")


def test_a_failure_keeps_the_old_report(finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.html").write_text("old")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path, finished.fmap, finished.records, finished.pairs)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "old"


def test_the_figure_has_300_dpi(finished: Any, tmp_path: Path) -> None:
    _, picture = write_report(tmp_path, finished.fmap, finished.records)
    with Image.open(picture) as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert image.width == 1650


def test_a_dollar_in_a_name_is_no_formula(finished: Any, tmp_path: Path) -> None:
    entries = {"cost $\\frac{": finished.fmap.functions["counting"]}
    write_report(tmp_path, finished.fmap.model_copy(update={"functions": entries}), finished.records)


def test_examples_show_the_answer_at_every_layer(finished: Any) -> None:
    shown = examples(finished.fmap, finished.records, finished.pairs)
    depth = finished.fmap.model.num_layers
    for name, of_function in shown.items():
        assert len(of_function) == 2
        for example in of_function:
            assert len(example.strip) == depth
            assert example.answer == "3"
            layers = ", ".join(swapped.layers for swapped in example.layers)
            covered = [k for part in layers.split(", ") for k in _span(part)]
            assert covered == list(range(depth)), name
    # The pairs that tell most come first: the chosen layer turned their answer to the source's.
    assert {swapped.state for example in shown["counting"] for swapped in example.chosen} == {"source"}
    assert {swapped.state for example in shown["grounding"] for swapped in example.together} == {"source"}
    assert all(len(swapped.answer) <= 120 for kept in shown.values() for e in kept for swapped in e.layers)


def test_thumbnails_are_small(finished: Any) -> None:
    pictures = [e.image for kept in examples(finished.fmap, finished.records, finished.pairs).values() for e in kept]
    assert any(pictures)
    assert all(len(picture) < 4 * THUMBNAIL * THUMBNAIL for picture in pictures if picture)


def _span(part: str) -> range:
    first, _, last = part.partition("–")
    return range(int(first), int(last or first) + 1)


def test_the_headline_is_the_block_where_layers_act_only_together(finished: Any) -> None:
    entries = finished.fmap.functions
    assert headline(entries["counting"])[0] == entries["counting"].changed[6]  # type: ignore[index]
    assert headline(entries["grounding"])[0] == entries["grounding"].blocks[0].changed  # type: ignore[index]
    assert headline(entries["colour"]) is None


def test_words_and_charts() -> None:
    assert layer_list([3, 4, 5, 9]) == "3–5, 9"
    assert layer_list([]) == "none"
    assert (percent(0.874), interval((0.0, 0.051))) == ("87\u00a0%", "0–5\u00a0%")
    assert (charts.shade(0), charts.shade(1), charts.shade(7)) == ("#ffffff", "#08306b", "#08306b")
    assert charts.line([0, 1]) == "M25.0 100.0 L75.0 0.0"
    for depth in (1, 2, 10, 28, 80, 1000):
        ticks = charts.layer_ticks(depth)
        assert 1 <= len(ticks) <= 8
        assert all(0 < tick.at < 100 for tick in ticks)
    assert len({(ink.colour, ink.dash) for ink in charts.inks([str(n) for n in range(24)]).values()}) == 24
    assert re.fullmatch(r"M[\d. L]+ Z", charts.area([0.1, 0.2], [0.3, 0.4]))


def test_no_number_is_minus_nothing(page: str) -> None:
    assert ">-0.0<" not in page
