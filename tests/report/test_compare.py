"""Maps of several models at relative depth."""

from pathlib import Path

import pytest
from fake_records import Fake, records, sharp
from report_pages import DRAWING, column, figures, scripts, sheets
from typer.testing import CliRunner

from vfl.errors import InputError
from vfl.functionmap import FunctionMap, ModelId
from vfl.locate.layer_rule import ChoiceConfig
from vfl.locate.map_entries import build_entries
from vfl.locate.report.compare import compare_maps
from vfl.locate.report.write import write_comparison


def saved(folder: Path, name: str, num_layers: int, **peaks: int) -> Path:
    table = records({function: Fake(sharp(peak)) for function, peak in peaks.items()}, num_layers)
    FunctionMap(
        model=ModelId(id=name, family="f", num_layers=num_layers),
        functions=build_entries(table, num_layers, ChoiceConfig(bootstrap=0)),
    ).save(folder / "map.json")
    return folder


@pytest.fixture
def maps(tmp_path: Path) -> list[Path]:
    return [
        saved(tmp_path / "a", "owner/small", 11, recognition=0, counting=4, grounding=6, ocr=8),
        saved(tmp_path / "b", "owner/large", 21, recognition=1, counting=8, grounding=12, ocr=18, chart=20),
        saved(tmp_path / "c", "other/[bold]reversed", 11, recognition=10, counting=8, grounding=4, ocr=2),
    ]


def test_peaks_stand_at_relative_depth(maps: list[Path]) -> None:
    compared = compare_maps(maps)
    assert compared.labels == ("small", "large", "[bold]reversed")
    assert compared.peaks[0]["counting"] == 0.4
    assert compared.peaks[1]["counting"] == 0.4
    assert "chart" not in compared.peaks[0]
    assert set(compared.functions) == {"recognition", "counting", "grounding", "ocr", "chart"}


def test_agreement_is_kendalls_tau_over_shared_functions(maps: list[Path]) -> None:
    compared = compare_maps(maps)
    assert [(pair.shared, pair.tau) for pair in compared.agreements] == [(4, 1.0), (4, -1.0), (4, -1.0)]
    assert compared.mean_tau == pytest.approx(-1 / 3)


def test_a_map_agrees_with_itself_and_rows_keep_apart(maps: list[Path]) -> None:
    compared = compare_maps([maps[0], maps[0] / "map.json"])
    assert compared.agreements[0].tau == 1
    assert compared.labels == ("small (a) #1", "small (a) #2")


def test_without_two_shared_functions_there_is_no_tau(tmp_path: Path) -> None:
    pair = [saved(tmp_path / "a", "a", 6, ocr=2), saved(tmp_path / "b", "b", 6, ocr=3, chart=4)]
    compared = compare_maps(pair)
    (agreement,) = compared.agreements
    assert (agreement.shared, agreement.tau, agreement.tau_text) == (1, None, "–")
    assert compared.mean_tau is None


def test_one_map_is_too_few(maps: list[Path]) -> None:
    with pytest.raises(InputError, match="at least two"):
        compare_maps(maps[:1])


def test_out_is_a_folder_a_figure_or_a_page(maps: list[Path], tmp_path: Path) -> None:
    compared = compare_maps(maps)
    assert [path.name for path in write_comparison(compared, tmp_path / "out")] == ["compare.png", "compare.html"]
    assert write_comparison(compared, tmp_path / "only.html") == [tmp_path / "only.html"]
    assert write_comparison(compared, tmp_path / "only.png")[0].read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"ends in \.pdf"):
        write_comparison(compared, tmp_path / "x.pdf")


def test_the_numbers_of_the_figure_are_those_that_it_draws(maps: list[Path], tmp_path: Path) -> None:
    compared = compare_maps(maps)
    (path,) = write_comparison(compared, tmp_path / "only.html")
    page = path.read_text(encoding="utf-8")
    assert scripts(page) == [DRAWING]
    assert figures(page) == (1, 0)
    rows = sheets(page)["peak-layers"]
    assert len(rows) == 1 + 4 + 5 + 4
    for (label, name, *_), depth in zip(rows[1:], column(rows, "relative depth (0 to 1)"), strict=True):
        assert depth == compared.peaks[compared.labels.index(label)][name]
        assert f'd="M{round(100 * depth, 3)} 50h0"' in page


def test_the_command_prints_names_as_they_are(maps: list[Path], tmp_path: Path) -> None:
    import typer

    from vfl.commands.compare import command as compare

    app = typer.Typer()
    app.command()(compare)
    result = CliRunner().invoke(app, [*map(str, maps), "--out", str(tmp_path / "out")], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert "[bold]reversed" in result.output
    assert "-1.00" in result.output
    assert "8 (0.80)" in result.output
    assert str(tmp_path / "out" / "compare.html") in result.output
