"""Measurements side by side: scalars, and the distance and correlation of head tables."""

import numpy as np
import pytest
from PIL import Image

from vfl.errors import InputError
from vfl.functionmap import ModelId
from vfl.measure.compare import as_markdown, at_depths, compare_measurements, emd, pearson_of
from vfl.measure.compare_figure import dark, matrices
from vfl.measure.metrics_file import MeasuredOn, Metrics

RNG = np.random.default_rng(0)


def test_emd_is_the_shift_between_two_distributions():
    table = RNG.random((4, 3))
    assert emd(table, table) == 0
    assert emd(table, table[::-1]) == pytest.approx(0), "where a head stands does not matter"
    assert emd(table, table + 0.25) == pytest.approx(0.25)


def test_pearson_head_by_head_and_over_relative_depth():
    table = RNG.random((6, 4))
    correlated = pearson_of(table, 2 * table + 1)
    assert correlated["pearson"] == pytest.approx(1)
    assert correlated["layers"] is None
    assert correlated["n"] == 24
    weaker = pearson_of(table, table + 0.3 * RNG.random((6, 4)))
    assert weaker["low"] < weaker["pearson"] < weaker["high"]
    # a linear profile is the same at any depth
    profile = np.linspace(0, 1, 6)[:, None] + np.linspace(0.5, 0, 4)
    other = np.linspace(0, 1, 11)[:, None] + np.linspace(0, 0.5, 8)
    correlated = pearson_of(profile, other)
    assert (correlated["layers"], correlated["n"]) == (6, 6)
    assert correlated["pearson"] == pytest.approx(1)
    assert at_depths(profile[:, 0], 6) == pytest.approx(profile[:, 0])
    assert pearson_of(table, np.ones((6, 4)))["pearson"] is None


def test_tables_of_noise_do_not_correlate_whatever_their_shapes():
    """As they would if each layer's heads were sorted before they are set side by side."""
    rng = np.random.default_rng(0)
    found = [pearson_of(rng.random((28, 16)), rng.random((32, 32)))["pearson"] for _ in range(50)]
    assert abs(np.mean(found)) < 0.1
    assert np.abs(found).max() < 0.7


def test_numbers_stand_out_from_their_cell():
    assert [dark(colour) for colour in ((0, 0, 0, 1), (0.03, 0.19, 0.42, 1), (0.97, 0.98, 1, 1), (1, 1, 1, 1))] == [
        True,
        True,
        False,
        False,
    ]


def scalar(value, low=None, high=None):
    return {"value": value, "low": low, "high": high, "n": 8}


def measurement(folder, model, heads, accuracy, **more):
    """A folder as `vfl measure` leaves it."""
    empty = {"n": 8, "curves": {}, "options": {}}
    results = {
        "drop": empty | {"scalars": {"counting/accuracy": scalar(accuracy, 0.25, 0.75)}},
        "head_score": empty | {"scalars": {"heads": scalar(0.1)}, "heads": heads},
    }
    Metrics(
        model=ModelId(id=model, family="LLaVA", num_layers=len(heads)),
        data=MeasuredOn(kind="probes", name="micro", sha256="ab" * 32, n=8, functions={"counting": 8}),
        metrics=results | more,
    ).save(folder)
    return folder


def test_what_measurements_share_stands_side_by_side(tmp_path):
    table, deeper = RNG.random((3, 2)).tolist(), RNG.random((6, 4)).tolist()
    only = {"var": {"n": 8, "scalars": {"svar": scalar(1.0)}, "curves": {}, "options": {}}}
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    first = measurement(tmp_path / "a", "owner/m", table, 0.5)
    second = measurement(tmp_path / "b", "owner/m", table, 0.75, **only)
    third = measurement(tmp_path / "c", "owner/deep", deeper, 0.25)
    shared = compare_measurements([first, second / "metrics.json", third])
    assert shared.labels == ("m (a)", "m (b)", "deep")
    assert [(row.metric, row.name) for row in shared.scalars] == [
        ("drop", "counting/accuracy"),
        ("head_score", "heads"),
    ]
    assert shared.scalars[0].values == ((0.5, 0.25, 0.75), (0.75, 0.25, 0.75), (0.25, 0.25, 0.75))
    same, other, _ = shared.heads
    assert (same.emd, same.pearson, same.n, same.layers) == (0, pytest.approx(1), 6, None)
    assert (other.layers, other.pearson) == (3, None), "three layers are too few"
    text = as_markdown(shared)
    assert "| drop | counting/accuracy | 50.0\u00a0% (25.0\u00a0% to 75.0\u00a0%) |" in text
    assert "| head_score | m (a) / m (b) | 0 | 1.000 |" in text
    assert {line.count("|") for line in text.split("\n\n")[0].splitlines()[:2]} == {6}


def test_too_few_and_nothing_in_common_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first = measurement(tmp_path / "a", "m", [[0.1, 0.2]], 0.5)
    with pytest.raises(InputError, match="at least two"):
        compare_measurements([first])
    with pytest.raises(InputError, match="vfl measure"):
        compare_measurements([first, tmp_path / "nowhere"])
    second = measurement(tmp_path / "b", "m", [[0.1, 0.2]], 0.5)
    text = (second / "metrics.json").read_text()
    (second / "metrics.json").write_text(text.replace('"drop"', '"swap"').replace('"head_score"', '"var"'))
    with pytest.raises(InputError, match="no metric in common"):
        compare_measurements([first, second])


def test_matrices_hold_every_pair_once_over_the_diagonal(tmp_path):
    tables = [RNG.random((3, 2)) for _ in range(3)]
    folders = [tmp_path / name for name in "abc"]
    for folder, table in zip(folders, tables, strict=True):
        folder.mkdir()
        measurement(folder, folder.name, table.tolist(), 0.5)
    compared = compare_measurements(folders)
    distance, correlation = matrices(compared.labels, compared.heads)
    for matrix, of, own in ((distance, emd, 0), (correlation, lambda a, b: pearson_of(a, b)["pearson"], 1)):
        assert matrix.diagonal() == pytest.approx(np.full(3, own))
        assert matrix == pytest.approx(matrix.T)
        assert matrix[0, 2] == pytest.approx(of(tables[0], tables[2]))


def test_the_command_sets_measurements_side_by_side(tmp_path, capsys):
    from vfl.commands.compare import command as compare

    folders = [tmp_path / name for name in ("small", "large")]
    for folder in folders:
        folder.mkdir()
        measurement(folder, folder.name, RNG.random((3, 2)).tolist(), 0.5)
    compare(folders, out=tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text() == as_markdown(compare_measurements(folders))
    assert "small" in capsys.readouterr().out
    compare(folders, out=tmp_path / "heads.png")
    assert Image.open(tmp_path / "heads.png").size[0] > 500
    with pytest.raises(InputError, match=r"ends in \.md"):
        compare(folders, out=tmp_path / "table.html")


def test_measure_compare_is_compare(tmp_path, capsys, monkeypatch):
    """Runs are compared by either name; options alone are those of a model that lies in a folder of this name."""
    from vfl.commands.main import run

    folders = [tmp_path / name for name in ("small", "large")]
    for folder in folders:
        folder.mkdir()
        measurement(folder, folder.name, RNG.random((3, 2)).tolist(), 0.5)
    shown = []
    for words in (["compare"], ["measure", "compare"]):
        monkeypatch.setattr("sys.argv", ["vfl", *words, *map(str, folders)])
        with pytest.raises(SystemExit) as ended:
            run()
        assert ended.value.code == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "EMD" in shown[0]
    monkeypatch.setattr("sys.argv", ["vfl", "measure", "compare", "--metrics", "nothing", "--out", str(tmp_path / "m")])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    assert "Unknown metrics 'nothing'" in capsys.readouterr().err
