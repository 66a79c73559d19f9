"""Commands that write a suite, a picture or a file of settings: whole or not at all, and one at a time."""

import os
import resource
from contextlib import contextmanager

import faulted
import pytest
import trained

from vfl.errors import InputError
from vfl.io.run_folder import RunFolder
from vfl.train.run import train

LORA = ["--model", "embedded", "--layers", "2"]
SUITE = ["--style", "micro", "--functions", "counting", "--pairs", "1"]


@contextmanager
def full_disk():
    """Inside, no file of this process grows; pytest's own report may be one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    faulted.fill_disk()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def suite(tmp_path):
    assert faulted.command(["probes", "make", str(tmp_path / "suite"), *SUITE]) == 0
    return tmp_path / "suite"


def refusal(words, capsys):
    """The one paragraph of a command that is refused."""
    capsys.readouterr()
    assert faulted.command(list(map(str, words))) == 2
    (message,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert message.startswith("Error: ")
    return message


def test_two_processes_do_not_mix_their_suites(tmp_path, capsys):
    out = tmp_path / "suite"
    with RunFolder(out, "probes.jsonl").alone():
        said = refusal(["probes", "make", out, *SUITE], capsys)
    assert f"{out} is being written by process {os.getpid()}" in said
    assert faulted.command(["probes", "make", str(out), *SUITE]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["probes", "make", "{folder}/new", *SUITE], r"new is full. Nothing is lost: make room"),
        (["probes", "show", "{suite}", "--out", "{folder}/sheet.png"], "is full. Make room and try again."),
        (
            ["lora-config", *LORA, "--out", "{folder}/files"],
            "is full. Make room and try again.",
        ),
    ],
    ids=["probes make", "probes show", "lora-config"],
)
def test_a_full_disk_is_one_paragraph(suite, tmp_path, capsys, words, said):
    places = {"suite": suite, "folder": tmp_path}
    with full_disk():
        message = refusal([word.format(**places) for word in words], capsys)
    assert said in message
    written = [path for path in tmp_path.rglob("*") if path.is_file() and suite not in path.parents]
    assert not [path for path in written if path.stat().st_size]
    assert not [*tmp_path.rglob(".*")]


def test_two_checks_beside_one_run_do_not_meet(tmp_path):
    out = tmp_path / "run"
    RunFolder(out, "report.html").save({})
    recipe = trained.settings(tmp_path, tmp_path / "rows.jsonl", out)
    with (
        RunFolder(tmp_path / ".run.check", "preflight.json", whole=True).alone(),
        pytest.raises(InputError, match="is being written by process"),
    ):
        train(recipe, check=True, progress=False)
