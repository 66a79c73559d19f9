"""What a section shows of a result, and a page in which texts from data and models stay texts."""

import base64
import hashlib
import json
import re

import pytest
from report_pages import DRAWING, column, figures, scripts, sheets

from vfl.errors import InputError
from vfl.measure.guide import guide_of, ordered
from vfl.measure.metrics_file import read_metrics
from vfl.measure.panels import drawn
from vfl.measure.report.page import render, safe_json
from vfl.measure.report.write import write_report
from vfl.metrics.measure import known_metrics
from vfl.metrics.spec import SHARE
from vfl.report.charts import inks
from vfl.report.cloud import cloud_chart
from vfl.report.heat import heat_chart
from vfl.report.lines import chart, lines_of
from vfl.report.sheet import with_unit
from vfl.report.words import spoken

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
PAPERS = {
    "early layers": ["mask", "late_entry", "cosine", "similarity", "persistence", "injection"],
    "visual information": ["token_ablation", "lens", "knockout"],
    "skipping": ["var", "functional", "informational", "proximal", "recommended"],
    "function layers": ["drop", "swap"],
    "heads": ["head_weight", "concentration", "head_score", "head_masking", "visual_prompt"],
}
NAMES = [name for names in PAPERS.values() for name in names]


def test_every_metric_says_how_to_read_it_and_where_it_is_from():
    for name, spec in known_metrics().items():
        assert guide_of(name) is spec
        assert spec.title, name
        assert spec.source, name
        assert spec.equation, name
        assert len(spec.read) > 20, name
        assert spec.use.endswith("."), name
    assert list(known_metrics()) == NAMES, "in the order of the papers"
    assert ordered(["swap", "unheard", "mask"]) == ["mask", "swap", "unheard"]


def test_panels_are_functions_and_lines_of_one_unit_with_their_levels(metrics):
    figure = drawn(metrics.metrics["drop"], guide_of("drop"), metrics.data.functions)
    accuracy, logprob, other = figure.panels
    assert other.title == spoken(HOSTILE), "a name with slashes is one name"
    assert (accuracy.title, accuracy.unit, accuracy.levels) == ("counting", SHARE, {"no image": 0.3, "chance": 0.25})
    assert (logprob.title, logprob.unit, logprob.levels) == ("counting", "nats per token", {})
    assert figure.numbers.headings == ["accuracy", "no image", "chance", "tolerated"]
    name, cells, n = figure.numbers.rows[0]
    assert (name, n) == ("counting", "8")
    assert cells == [("90.0\u00a0%", "70.0\u00a0% to 95.0\u00a0%"), ("30.0\u00a0%", "20.0\u00a0% to 40.0\u00a0%"),
                     ("25.0\u00a0%", ""), ("3", "")]  # fmt: skip


def test_windows_are_named_and_edges_are_small_panels_on_one_scale(metrics):
    panels = drawn(metrics.metrics["knockout"], guide_of("knockout"), ["counting"]).panels
    edges = ("object to last token", "object+1 to last token")
    assert [panel.title for panel in panels] == [f"{edge}: {what}" for edge in edges for what in ("accuracy", "drop")]
    assert {line.name for panel in panels for line in panel.series} == {"counting"}
    assert panels[0].places == ["early 0–1", "mid 1–2", "late 2–3"]
    assert panels[1].ends == panels[3].ends == pytest.approx((0.45, 0.95))
    section = render(metrics).split('<section id="knockout">')[1].split("</section>")[0]
    assert "small-multiples" in section


def test_similarity_is_a_panel_a_modality_on_one_scale(metrics):
    """Lines of an edit have one colour in both, and both have the same ticks."""
    vision, text = (charts := drawn(metrics.metrics["similarity"], guide_of("similarity"))).panels
    assert [vision.title, text.title] == ["vision", "text"]
    assert [[line.name for line in panel.series] for panel in (vision, text)] == [["mask", "skip"]] * 2
    ready = [chart(panel, inks(lines_of(charts.panels))) for panel in (vision, text)]
    assert ready[0].y_ticks == ready[1].y_ticks
    assert vision.series[0].value != text.series[0].value


def test_ways_to_skip_stand_on_their_axis_by_name(metrics):
    accuracy, *_ = drawn(metrics.metrics["recommended"], guide_of("recommended"), ["counting"]).panels
    assert accuracy.places == ["none", "entry 2", "exit 5", "both"]


def test_dots_say_unit_axis_and_number(metrics):
    guide = guide_of("token_ablation")
    dots = drawn(metrics.metrics["token_ablation"], guide).dots
    assert {dot.n for dot in dots} == {8}
    section = render(metrics).split('<section id="token_ablation">')[1].split("</section>")[0]
    assert "share of right answers that turn wrong, %" in section
    assert section.count('<span class="muted small">n 8</span>') == len(dots) == 2
    assert "polling: kept" not in {dot.name for dot in dots}, "what was kept is no share of right answers that turn"
    assert "kept" in section, "but a number of the table"


def test_long_lists_are_folded_and_each_section_says_what_to_do(metrics):
    many = {**metrics.metrics["lens"], "without_object": [f"pair-{n:03d}" for n in range(60)]}
    page = render(metrics.model_copy(update={"metrics": {**metrics.metrics, "lens": many}}), notes=["n"] * 9)
    section = page.split('<section id="lens">')[1].split("</section>")[0]
    assert section.index('<details class="list">') < section.index("pair-039") < section.index("and 20 more")
    assert "and 3 more</summary>" in page
    assert page.count("What to do with it.") == len(metrics.metrics)


def test_tables_are_heat_maps_and_lone_numbers_are_dots(metrics):
    figure = drawn(metrics.metrics["head_weight"], guide_of("head_weight"))
    (heat,) = figure.heats
    assert len(heat_chart(heat.title, heat.rows, ("layer", range(6)), ("head", range(4))).cells) == 24
    assert figure.ranking == (["layer", "head", "value"], [["5", "3", "0.65"]])
    dots = drawn(metrics.metrics["token_ablation"], guide_of("token_ablation")).dots
    assert [(dot.name, dot.unit) for dot in dots] == [("polling: object", SHARE), ("polling: random object", SHARE)]


def test_heads_are_a_scatter_of_two_tables_by_thirds_of_the_depth(metrics):
    """The table that stands to the right is no heat map as well; the mean of a layer's heads is a line by layer."""
    result = metrics.metrics["concentration"]
    figure = drawn(result, guide_of("concentration"))
    (cloud,) = figure.clouds
    assert (cloud.axis, cloud.unit) == ("attention mass", "concentration")
    assert {name: len(points) for name, points in cloud.groups.items()} == dict.fromkeys(
        ("early layers", "mid layers", "late layers"), 8
    )
    xs, ys, says = zip(*cloud.groups["late layers"], strict=True)
    assert xs == tuple(x for row in result["weights"][4:] for x in row)
    assert ys == tuple(y for row in result["heads"][4:] for y in row)
    assert says[-1] == "layer 5, head 3: attention mass 0.4, concentration 0.65"
    assert [heat.title for heat in figure.heats] == ["heads"]
    assert [line.name for panel in figure.panels for line in panel.series] == ["heads"]
    section = render(metrics).split('<section id="concentration">')[1].split("</section>")[0]
    assert section.count("layer 5, head 3: attention mass") == 1
    assert not drawn(metrics.metrics["head_weight"], guide_of("head_weight")).clouds


def test_a_gap_is_no_number(metrics):
    (panel,) = drawn(metrics.metrics["lens"], guide_of("lens")).panels
    lines = {line.name: line for line in chart(panel, inks(lines_of([panel]))).lines}
    assert len(lines["confidence"].dots) == 7
    assert len(lines["correspondence"].dots) == 6
    assert "nan" not in str(lines)


def test_everything_from_outside_is_escaped(metrics, pictures):
    page = render(metrics, pictures, notes=["<b>note</b>"])
    script = page.index("<script>")
    assert page.count("<script") == 3, "the lens' data, the lens, and what all reports have"
    assert 'onerror="' not in page.split('id="lens-data"')[0]
    assert "<img src=x" not in page
    data = re.search(r'id="lens-data">(.*?)</script>', page, re.S)[1]
    assert json.loads(data) == pictures
    source = page[script + len("<script>") : page.index("</script>", script)]
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    assert f" 'sha256-{digest}'" in page
    for name in metrics.metrics:
        assert f'<section id="{name}">' in page


def test_without_pictures_there_is_no_lens(metrics):
    assert scripts(render(metrics)) == [DRAWING]


def test_the_numbers_of_every_figure_are_those_that_it_draws(metrics):
    page = render(metrics)
    found = sheets(page)
    assert figures(page) == (len(found), 0)
    for name, result in metrics.metrics.items():
        content = drawn(result, guide_of(name), metrics.data.functions)
        for panel in content.panels:
            ready = chart(panel)
            rows = found[ready.sheet.of(name).name]
            for place, line in enumerate(panel.series):
                assert column(rows, with_unit(line.name, panel.unit)) == line.value
                assert column(rows, with_unit(f"{line.name} low", panel.unit)) == line.low
                assert f'd="{ready.lines[place].path}"' in page
        for heat in content.heats:
            rows = found[f"{name}-{heat.title}".replace("_", "-")]
            assert [[float(cell) for cell in row[1:]] for row in rows[1:]] == heat.rows
        for cloud in content.clouds:
            rows = found[cloud_chart(cloud).sheet.of(name).name]
            points = [(x, y) for group in cloud.groups.values() for x, y, _ in group]
            assert list(zip(column(rows, cloud.axis), column(rows, cloud.unit), strict=True)) == points
        if content.dots:
            assert column(found["ablating-vision-tokens"], "value") == [dot.value for dot in content.dots]


def test_json_in_a_script_element_stays_inside_it():
    text = safe_json({"a": "</script><!--\u2028&"})
    assert not {"<", ">", "&", "\u2028"} & set(text)
    assert json.loads(text) == {"a": "</script><!--\u2028&"}


def test_files_are_written_and_read_back(metrics, pictures, tmp_path):
    write_report(tmp_path, metrics, pictures)
    assert (tmp_path / "figures" / "head_weight.png").stat().st_size > 1000
    assert read_metrics(metrics.save(tmp_path)) == metrics
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["schema"] == 1
    (tmp_path / "metrics.json").write_text(json.dumps(content | {"schema": 2}))
    with pytest.raises(InputError, match="schema 2"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(InputError, match="is no metrics"):
        read_metrics(tmp_path)
    with pytest.raises(InputError, match="vfl measure"):
        read_metrics(tmp_path / "nowhere")
