"""The command line: real commands on real files, one paragraph and exit code 2 for bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import warm
from own_suite import write_own_suite

import vfl
from vfl.functionmap import FunctionMap

pytestmark = pytest.mark.long

# What a user types, without the second that starting an interpreter costs.
VFL = ("-c", "from vfl.commands.main import run; run()")
# A random model goes on for as long as it may: a few tokens show what it answers.
ANSWER = 6


@pytest.fixture(scope="module")
def model(tiny_folder):
    return tiny_folder("qwen2_5_vl")


@pytest.fixture(scope="module")
def suite(model, tmp_path_factory):
    return write_own_suite(vfl.load(model), tmp_path_factory.mktemp("suite") / "probes", 6, max_new_tokens=ANSWER)


def vfl_process(*arguments, code=VFL):
    return warm.finished([*code, *map(str, arguments)], {**os.environ, "COLUMNS": "200"})


def is_one_paragraph(errors):
    lines = [line for line in errors.splitlines() if "Loading weights" not in line]
    paragraph = "\n".join(lines).strip()
    return paragraph.startswith("Error: ") and "\n\n" not in paragraph and "Traceback" not in paragraph


def test_locate_ends_with_a_table_and_the_report(model, suite, tmp_path):
    done = vfl_process("locate", model, "--probes", suite, "--out", tmp_path / "out", "--max-new-tokens", ANSWER)
    assert done.returncode == 0, done.stderr
    assert "naming" in done.stdout
    assert "6/6" in done.stdout
    assert str(tmp_path / "out" / "report.html") in done.stdout
    assert "naming: single layers" in done.stderr, "progress"
    assert FunctionMap.load(tmp_path / "out" / "map.json").functions["naming"].pairs == 6


def test_a_recipe_is_read_and_flags_override_it(vfl_command, model, suite, tmp_path):
    recipe = tmp_path / "locate.yaml"
    recipe.write_text(
        f"model: {model}\nprobes: {suite}\nmode: single\nreading: answer\nmax_new_tokens: {ANSWER}\n"
        f"out: {tmp_path / 'unused'}\n"
    )
    code, _, errors = vfl_command("locate", "--config", recipe, "--out", tmp_path / "out", "--reading", "text")
    assert code == 0, errors
    fmap = FunctionMap.load(tmp_path / "out" / "map.json")
    assert (fmap.settings["mode"], fmap.settings["reading"]) == ("single", "text")
    assert not (tmp_path / "unused").exists()


# `vfl` that gets the signal of Ctrl-C as the fourth pair is asked, not after a time, of which a busy machine decides.
STOPPED = """
import os, signal
from vfl.commands.main import run
from vfl.locate import sweeping

sweep_group, done = sweeping.sweep_group, []

def stopped(asker, pairs, blocks, **options):
    done.extend(pairs)
    if len(done) == 4:
        os.kill(os.getpid(), signal.SIGINT)
    return sweep_group(asker, pairs, blocks, **options)

sweeping.sweep_group = stopped
run()
"""


def test_ctrl_c_leaves_no_map_and_resume_goes_on(model, tmp_path, suite):
    out = tmp_path / "out"
    recipe = tmp_path / "locate.yaml"
    recipe.write_text(f"part_pairs: 1\nmode: single\nmax_new_tokens: {ANSWER}\n")
    arguments = ("locate", model, "--probes", suite, "--out", out, "--config", recipe)
    stopped = vfl_process(*arguments, code=("-c", STOPPED))
    assert stopped.returncode == 130, stopped.stderr
    assert "--resume" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not (out / "map.json").exists()
    assert len(list(out.glob("parts/0*.parquet"))) == 3
    resumed = vfl_process(*arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert FunctionMap.load(out / "map.json").functions["naming"].pairs == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("locate", "./absent", "--out", "OUT"), "No model folder"),
        (("locate", "MODEL"), "--out is missing"),
        (("locate", "MODEL", "--out", "OUT", "--mode", "both"), "--mode is 'both'"),
        (("locate", "MODEL", "--out", "OUT", "--functions", "countng"), "does not draw 'countng'"),
        (("locate", "MODEL", "--out", "OUT", "--functions", "namng", "--probes", "SUITE"), "no pairs for namng"),
        (("locate", "MODEL", "--out", "OUT", "--layers", "naming:3"), "FUNCTION=10-12,14"),
        (("locate", "MODEL", "--out", "OUT", "--layers", "naming=99", "--probes", "SUITE"), "99"),
        (("locate", "MODEL", "--out", "OUT", "--probes", "TEXT"), "holds no probes.jsonl"),
        (("locate", "TEXT", "--out", "OUT"), "holds no config.json"),
        (("locate", "MODEL", "--out", "OUT", "--config", "YAML"), "unknown key 'moed'"),
        (("locate", "MODEL", "--out", "OUT", "--config", "absent.yaml"), "can't be read"),
        (("swap", "MODEL", "SMALL", "LARGE", "how many?"), "same size in pixels"),
        (("swap", "MODEL", "SMALL", "BROKEN", "how many?"), "broken.png cannot be read"),
        (("swap", "MODEL", "SMALL", "SMALL", "how many?", "--window", "9"), "which has 5 layers"),
        (
            ("swap", "MODEL", "SMALL", "SMALL", "how many?", "--reading", "none"),
            "--reading is 'none': Input should be 'text', 'answer' or 'all'",
        ),
        (("swap", "MODEL", "SMALL", "SMALL", "how many?", "--set", "windw=2"), "unknown key 'windw', did you mean"),
        (("swap", "MODEL", "SMALL", "SMALL"), "QUESTION is missing"),
        (("compare", "TEXT", "TEXT"), "No function map"),
    ],
)
def test_bad_input_is_one_paragraph(vfl_command, model, suite, tmp_path, arguments, message):
    (tmp_path / "text").mkdir()
    (tmp_path / "recipe.yaml").write_text("moed: single\n")
    tiny.picture(size=(64, 48)).save(tmp_path / "small.png")
    tiny.picture(size=(96, 96)).save(tmp_path / "large.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "small.png").read_bytes()[:50])
    places = {
        "MODEL": model,
        "SUITE": suite,
        "OUT": tmp_path / "out",
        "TEXT": tmp_path / "text",
        "YAML": tmp_path / "recipe.yaml",
        "SMALL": tmp_path / "small.png",
        "LARGE": tmp_path / "large.png",
        "BROKEN": tmp_path / "broken.png",
    }
    code, _, errors = vfl_command(*(places.get(argument, argument) for argument in arguments))
    assert code == 2
    assert message in errors.replace("\n", " "), errors
    assert is_one_paragraph(errors), errors
    assert not (tmp_path / "out").exists(), "nothing that would stand in the way of the corrected command"


def test_debug_shows_the_traceback(tmp_path):
    done = vfl_process("--debug", "locate", "./absent", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert not (tmp_path / "out").exists(), "nothing is written before the model is found"


def test_swap_prints_an_answer_a_layer(vfl_command, model, tmp_path):
    for seed in (1, 2):
        tiny.picture(seed=seed).save(tmp_path / f"{seed}.png")
    code, output, errors = vfl_command(
        "swap", model, tmp_path / "1.png", tmp_path / "2.png", "how many cats", "--window", 2
    )
    assert code == 0, errors
    assert all(f"{first}-{first + 1}" in output for first in range(4))
    assert "source" in output
    recipe = tmp_path / "swap.yaml"
    pictures = f"target: {tmp_path / '1.png'}\nsource: {tmp_path / '2.png'}\n"
    recipe.write_text(f"model: {model}\n{pictures}question: how many cats\nwindow: 3\n")
    assert vfl_command("swap", "--config", recipe, "--set", "window=2")[:2] == (0, output)


def test_models_lists_every_family(vfl_command, monkeypatch):
    from vfl.models.families import FAMILIES, TESTED

    monkeypatch.setenv("COLUMNS", "80")
    code, output, _ = vfl_command("models")
    assert code == 0
    assert max(map(len, output.splitlines())) <= 80
    assert "…" not in output, "nothing is cut"
    first_words = {line.split()[0] for line in output.splitlines() if line.strip()}
    for family in FAMILIES:
        assert family.name.split()[0] in first_words
        assert all(kind in output for kind in (*family.model_types, family.boxes.name if family.known else "not known"))
    output = " ".join(output.split())
    assert "mllama" in output
    pinned = (Path(__file__).parents[2] / "constraints.txt").read_text()
    for name, tested in TESTED.items():
        assert f"{name} {tested}" in output
        assert f"{name}=={tested}\n" in pinned


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "vfl", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, f"vfl {vfl.__version__}")


def test_version(vfl_command):
    code, output, _ = vfl_command("--version")
    assert (code, output.strip()) == (0, f"vfl {vfl.__version__}")


def test_a_map_names_its_model_and_settings(model, suite, tmp_path):
    settings = {"mode": "single", "max_new_tokens": ANSWER, "progress": False}
    fmap = vfl.locate(model, out=tmp_path, probes=str(suite), **settings)
    saved = json.loads((tmp_path / "map.json").read_text())
    assert saved["schema"] == 1
    assert saved["model"]["id"] == str(model)
    assert saved["model"]["num_layers"] == fmap.model.num_layers
    assert saved["settings"]["probes"] == str(suite)
    assert saved["versions"]["transformers"]
