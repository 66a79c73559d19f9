"""`vfl skip` as a user runs it."""

import os
import re

import pytest
import tiny
import typer
import warm
from typer.testing import CliRunner

from vfl.commands import skip
from vfl.errors import InputError

SCRIPT = ["-c", "from vfl.commands.main import run; run()", "skip"]
MAP = os.path.join(os.path.dirname(__file__), "..", "..", "recipes", "micro", "map.json")


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(skip.command)

    def invoke(*arguments):
        return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(part) for part in arguments])

    return invoke


def test_the_embedded_model_by_its_map():
    arguments = ["--map", MAP, "--keep", "counting", "--tokens", "2", "--repeats", "1"]
    done = warm.finished([*SCRIPT, *arguments])
    assert done.returncode == 0, done.stderr
    assert "vision tokens run at layers" in done.stdout
    assert "of the cache" in done.stdout


def test_entry_and_exit_on_a_picture(run, tiny_folder, tmp_path):
    image = tmp_path / "picture.png"
    tiny.picture().save(image)
    common = ("--image", image, "--question", "how many cats", "--tokens", 2, "--repeats", 1)
    done = run(tiny_folder("llava"), "--entry", 1, "--exit", 3, *common)
    assert done.exit_code == 0, done.output
    assert "run at layers 1–2 and are read at 1–2" in done.output
    assert "16 vision tokens" in done.output
    assert re.search(r"times as fast: the prompt [\d.]+ times, a token after it ([\d.]+ times|too short)", done.output)
    assert "Nothing is skipped" not in done.output
    done = run(tiny_folder("llava"), "--entry", 0, *common)
    assert "Nothing is skipped" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Say what to skip"),
        (("--map", MAP), "belong together"),
        (("--map", MAP, "--keep", "counting", "--entry", 1), "Say what to skip"),
        (("--exit", 99), "0 <= entry <= exit"),
        (("--map", MAP, "--keep", "juggling"), "no function juggling"),
    ],
)
def test_what_makes_no_sense_is_refused(run, arguments, message):
    error = run(*arguments).exception
    assert isinstance(error, InputError)
    assert message in str(error)
