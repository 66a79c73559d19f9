"""Several processes evaluate as one does, byte for byte on the CPU, and say an error once."""

import pytest
import trained
import warm

import vfl

pytestmark = pytest.mark.long

ASKED = ("embedded", "--pairs", "5", "--functions", "counting,ocr", "--batch-size", "4")


def launched(*words, number=2):
    return warm.ranks(["-m", "vfl.evaluate.launch", *map(str, words)], trained.environment(), number=number)


def test_processes_answer_what_one_does(tmp_path):
    vfl.evaluate("embedded", out=tmp_path / "one", pairs=5, functions=["counting", "ocr"], batch_size=4, progress=False)
    done = launched(*ASKED, "--out", tmp_path / "two")
    assert [rank.returncode for rank in done] == [0, 0], done[0].stderr[-3000:]
    for name in ("evaluation.json", "answers.jsonl"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    # A baseline, and more processes than batches.
    words = ("embedded", "--pairs", "1", "--functions", "ocr", "--which", "image", "--seed", "1")
    done = launched(*words, "--out", tmp_path / "few", number=3)
    assert [rank.returncode for rank in done] == [0, 0, 0], done[0].stderr[-3000:]
    again = launched(*words, "--out", tmp_path / "again", "--baseline", tmp_path / "few")
    assert [rank.returncode for rank in again] == [0, 0], again[0].stderr[-3000:]
    assert "Results: " in again[0].stdout
    assert not again[1].stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--baseline", "nowhere"), "nowhere"),
        (("--adapter", "nowhere"), "holds no adapter"),
        (("--pairs", "none"), "pairs"),
        (("--pears", "3"), "unrecognized arguments: --pears 3"),
    ],
)
def test_an_error_is_said_once(words, said, tmp_path):
    done = launched("embedded", "--out", tmp_path / "out", *words)
    codes = {rank.returncode for rank in done}  # when one ends, the test's launcher may kill the other
    assert 2 in codes, done[0].stderr[-3000:]
    assert codes <= {2, -9}, done[0].stderr[-3000:]
    told = [line for rank in done for line in rank.stderr.splitlines() if line.startswith("Error: ")]
    assert len(told) == 1
    assert said in told[0]
    assert not (tmp_path / "out" / "evaluation.json").exists()
