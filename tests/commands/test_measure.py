"""`vfl measure`: a real run with settings from a file and flags, and one paragraph for bad input."""

import json

import pytest
import typer
from typer.testing import CliRunner

from vfl.commands import measure
from vfl.errors import InputError


@pytest.fixture
def call(monkeypatch):
    """Run the command in this process: its output, or the InputError that `vfl` prints as a paragraph."""
    app = typer.Typer()
    app.command()(measure.command)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments):
        result = CliRunner().invoke(app, [*map(str, arguments)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    return invoke


def test_flags_override_the_file_and_everything_is_written(call, tmp_path):
    (tmp_path / "settings.yaml").write_text(
        "metrics: [cosine, head_weight]\npairs: 3\nfunctions: [counting]\noptions: {cosine: {eps: 0.4}}\n"
    )
    out = tmp_path / "out"
    arguments = ("--config", tmp_path / "settings.yaml", "--pairs", "1", "--metrics", "cosine,var", "--out", out)
    output = call(*arguments, "--set", "options.cosine.eps=0.3", "--set", "options.var.layers=[1, 3]")
    assert "Metrics of embedded" in output
    assert "svar" in output
    assert str(out / "report.html") in output
    saved = json.loads((out / "metrics.json").read_text())
    assert list(saved["metrics"]) == ["cosine", "var"]
    assert saved["data"]["functions"] == {"counting": 1}
    assert saved["metrics"]["cosine"]["options"]["eps"] == 0.3
    assert saved["metrics"]["var"]["options"]["svar_layers"] == [1, 3]
    assert saved["settings"]["options"] == {"cosine": {"eps": 0.3}, "var": {"layers": [1, 3]}}
    assert sorted(path.name for path in (out / "figures").iterdir()) == ["cosine.png", "var.png"]
    page = (out / "report.html").read_text()
    assert page.count("<script") == 1, "no lens: what all reports have alone"
    with pytest.raises(InputError, match="--resume to go on"):
        call(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "cosinus"], "Unknown metrics 'cosinus'; choose from mask"),
        (
            ["--metrics", "cosine", "--set", "options.cosine.epsilon=1"],
            "cosine has no option epsilon; it takes eps.*Did you mean eps",
        ),
        (["--metrics", "cosine", "--set", "options.cosine.eps"], "is no setting; write key=value"),
        (["--metrics", "cosine", "--set", "cosine.eps=1"], "cosine is a metric; its options are set as options.cosine"),
        (["--metrics", "cosine", "--data", "nowhere.json"], "no data at nowhere.json"),
        (["--pairs", "0"], "--pairs is 0"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(call, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        call(*arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
