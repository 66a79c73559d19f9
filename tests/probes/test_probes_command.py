"""`vfl probes make`, `check` and `show`, run as commands."""

import json
import subprocess
from pathlib import Path

import pytest
import warm
from PIL import Image

from vfl.probes.pair import PROBES_FILE, read_suite

PICTURE = Path(__file__).parents[2] / "vfl" / "probes" / "objects" / "cat.png"


def vfl(*arguments: object) -> subprocess.CompletedProcess[str]:
    return warm.finished(["-c", "from vfl.commands.main import run; run()", "probes", *map(str, arguments)])


def refused(*arguments: object) -> str:
    """The one paragraph on standard error of a refused command, on one line."""
    done = vfl(*arguments)
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def test_a_suite_is_made_and_shown(tmp_path: Path) -> None:
    done = vfl("make", tmp_path / "a", "--functions", "counting, chart", "--pairs", 2, "--seed", 4, "--size", 96)
    assert done.returncode == 0, done.stderr
    assert "4 pairs (2 counting, 2 chart)" in done.stdout
    pairs = read_suite(tmp_path / "a")
    assert [pair.function for pair in pairs] == ["counting", "counting", "chart", "chart"]
    assert all(pair.size == (96, 96) for pair in pairs)
    done = vfl("check", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert "4 pairs (2 counting, 2 chart), sha256" in done.stdout
    assert "Note: chart has 2 pairs" in done.stdout
    done = vfl("show", tmp_path / "a", "--out", tmp_path / "out" / "sheet.png", "--rows", 3)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.height > 3 * 150


def test_the_micro_style_draws_the_four_functions(tmp_path: Path) -> None:
    done = vfl("make", tmp_path / "a", "--style", "micro", "--pairs", 1)
    assert done.returncode == 0, done.stderr
    assert [pair.size for pair in read_suite(tmp_path / "a")] == [(80, 80)] * 4


def test_settings_from_a_file_flags_and_sets(tmp_path: Path) -> None:
    """A flag is over the file, --set over both."""
    (tmp_path / "suite.yaml").write_text("style: micro\nfunctions: [counting, ocr]\npairs: 3\nseed: 4\n")
    done = vfl("make", tmp_path / "a", "--config", tmp_path / "suite.yaml", "--pairs", 2, "--set", "functions=ocr")
    assert done.returncode == 0, done.stderr
    assert "2 pairs (2 ocr)" in done.stdout
    again = vfl("make", tmp_path / "b", "--style", "micro", "--functions", "ocr", "--pairs", 2, "--seed", 4)
    assert again.stdout.partition(": ")[2] == done.stdout.partition(": ")[2], "the same pairs"


def test_own_pictures(tmp_path: Path) -> None:
    for name in ("cat", "fire_truck"):
        (tmp_path / f"{name}.png").write_bytes(PICTURE.read_bytes())
    done = vfl("make", tmp_path / "a", "--functions", "recognition", "--pairs", 6, "--objects", tmp_path)
    assert done.returncode == 0, done.stderr
    assert {pair.label for pair in read_suite(tmp_path / "a")} == {"cat", "fire truck"}


def test_coco_pairs_say_what_was_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (100, 80)).save(tmp_path / "1.png")
    annotations = {
        "images": [{"id": 1, "file_name": "1.png", "width": 100, "height": 80}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 0, 2, 2], "iscrowd": 0},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(annotations))
    done = vfl("make", tmp_path / "a", "--coco", tmp_path / "annotations.json", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "grounding: annotations left out: 1 tiny" in done.stdout
    assert [pair.function for pair in read_suite(tmp_path / "a")] == ["recognition", "grounding"]
    assert "leave out" in refused(
        "make", tmp_path / "b", "--coco", tmp_path / "annotations.json", tmp_path, "--size", 9
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--functions", "counting,smelling"], "does not draw 'smelling'"),
        (["--functions", ""], "does not draw ''"),
        (["--pairs", "0"], "pairs is 0"),
        (["--style", "nice"], "there is no style 'nice'"),
        (["--style", "micro", "--size", "448"], "style micro"),
        (["--style", "micro", "--objects", "."], "style micro"),
        (["--size", "5"], "too small"),
        (["--objects", "nowhere"], "nowhere is no folder"),
        (["--coco", "nowhere.json", "."], "nowhere.json cannot be read"),
    ],
)
def test_bad_options_end_in_one_paragraph(tmp_path: Path, options: list[str], expected: str) -> None:
    assert expected in refused("make", tmp_path / "a", *options)
    assert not (tmp_path / "a" / PROBES_FILE).exists()


def test_a_second_suite_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    assert vfl("make", tmp_path, "--functions", "ocr", "--pairs", 1, "--size", 64).returncode == 0
    assert "exists already" in refused("make", tmp_path, "--functions", "ocr", "--pairs", 1)


def test_a_bad_suite_is_refused_with_file_and_line(tmp_path: Path) -> None:
    assert "holds no probes.jsonl" in refused("show", tmp_path)
    (tmp_path / PROBES_FILE).write_text('{"id": "a"}\n')
    assert "probes.jsonl, line 1: key 'function' is missing" in refused("show", tmp_path)
    assert "1 line of 1 can't be used: line 1: key 'function' is missing" in refused("check", tmp_path)
