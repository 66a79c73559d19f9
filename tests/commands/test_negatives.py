"""`vfl negatives`: rejected answers are the engine's with the same layers hidden, and train a DPO run as they lie."""

import base64
import json
from pathlib import Path

import pytest
import warm
import yaml
from trained import environment

import vfl
from vfl.data import read
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.negatives import parts
from vfl.negatives.asking import Asker, Said
from vfl.negatives.config import NegativesConfig
from vfl.negatives.layers import blind_layers
from vfl.probes.make import make
from vfl.probes.match import same
from vfl.probes.style import MICRO_STYLE
from vfl.train.assemble import assemble
from vfl.train.recipe import Recipe

MAP = Path(__file__).resolve().parents[2] / "recipes" / "micro" / "map.json"
READS = [5]  # where the embedded model reads the image for counting
PAIRS = 6
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def vlm():
    return vfl.load(None, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Counting and reading, one row whose answer is wrong, and one without an image."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for pair in make(folder / "suite", ("counting", "ocr"), pairs=PAIRS, seed=5, style=MICRO_STYLE):
        answer = {"role": "assistant", "content": pair.answer}
        asked = [{"role": "user", "content": f"<image>\n{pair.question}"}, answer]
        rows.append({"id": pair.id, "images": [str(pair.path("image").relative_to(folder))], "messages": asked})
    wrong = json.loads(json.dumps(rows[0])) | {"id": "wrong"}
    wrong["messages"][1]["content"] = "77"
    text = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "3"}]
    rows += [wrong, {"id": "text", "messages": text}]
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def made(vlm, data, tmp_path_factory):
    """A run by the map's layers of counting: its folder and what it says."""
    out = tmp_path_factory.mktemp("made") / "out"
    return out, vfl.negatives(data, vlm, map=MAP, functions="counting", out=out, batch_size=4, **QUIET)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rejected_answers_are_those_of_the_plan_that_hides_the_layers(made, vlm, data):
    out, result = made
    assert result.layers == READS
    outcomes = {row["uid"]: row for row in lines(out / "answers.jsonl")}
    samples = list(read(data))
    assert list(outcomes) == [sample.uid for sample in samples]
    for sample in samples:
        row = outcomes[sample.uid]
        if not sample.images:
            assert row["outcome"] == "no image"
            continue
        encoded = vlm.encode(sample.messages[:-1], [image.open() for image in sample.images])
        assert row["answer"] == sweep(vlm, encoded, [Plan.hide(READS)], max_new_tokens=16).texts[0]
        expected = sample.messages[-1]["content"][0]["text"]
        kind = "number" if expected.isdigit() else "text"
        assert row["outcome"] == ("same answer" if same(kind, row["answer"], expected) else "kept")
    counting = [row["outcome"] for name, row in outcomes.items() if name.startswith("counting")]
    reading = [row["outcome"] for name, row in outcomes.items() if name.startswith("ocr")]
    assert counting.count("kept") > PAIRS / 2 > reading.count("kept"), "blind to counts, not to letters"


def test_the_folder_reads_as_preference_rows(made, data):
    out, result = made
    rows = {row.uid: row for row in read(out)}
    assert len(rows) == result.kept == len(lines(out / "negatives.jsonl"))
    assert result.rows == result.kept + sum(result.left_out.values()) == 2 * PAIRS + 2
    for sample in read(data):
        if sample.uid not in rows:
            continue
        row = rows[sample.uid]
        assert row.messages == sample.messages
        assert row.rejected[:-1] == sample.messages[:-1]
        assert [image.path for image in row.images] == [image.path for image in sample.images]
        assert row.prompt == len(sample.messages) - 1
    assert sorted(path.name for path in out.iterdir()) == [
        "answers.jsonl",
        "manifest.json",
        "negatives.jsonl",
        "settings.yaml",
    ]
    assert result.map.functions == ("counting",)
    assert result.model.id == "embedded"


def test_a_row_that_the_seeing_model_answers_wrongly_can_be_left_out(made, vlm, data, tmp_path):
    """By the same layers as a list: the same rows but for the one whose answer the model does not give."""
    out, _ = made
    settings = {"blind": "5", "only_answered": True, "match": "auto", **QUIET}
    answered = vfl.negatives([data], vlm, out=tmp_path / "out", **settings)
    assert answered.left_out["not answered"] >= 1
    assert "wrong" in {row["id"] for row in lines(out / "negatives.jsonl")}
    kept = {row["id"]: row for row in lines(tmp_path / "out" / "negatives.jsonl")}
    assert "wrong" not in kept
    assert kept.items() <= {row["id"]: row for row in lines(out / "negatives.jsonl")}.items()
    own = vfl.negatives(data, vlm, out=tmp_path / "own", blind="none", **QUIET)
    assert own.layers == []
    assert own.kept == answered.left_out["not answered"]


def test_embedded_bytes_and_marks(vlm, data, made, tmp_path):
    """Images that rows hold go along; an answer that would be read as an image is left out."""
    rows = lines(made[0] / "negatives.jsonl")[:2]
    home = Path(made[1].images)
    packed = tmp_path / "packed.jsonl"
    for row in rows:
        row["images"] = [{"base64": base64.b64encode((home / name).read_bytes()).decode()} for name in row["images"]]
    packed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = vfl.negatives(packed, vlm, blind=READS, out=tmp_path / "out", **QUIET)
    assert result.images is None
    assert [row.images[0].data for row in read(tmp_path / "out")] == [row.images[0].data for row in read(packed)]
    asker = Asker(vlm, NegativesConfig(data=packed, out=tmp_path, blind="all", batch_size=1), [])
    item = asker._item(next(read(packed)))
    for text, outcome in (("<image>", "control mark"), ("", "empty"), (item.expected, "same answer"), ("x", "kept")):
        assert asker._outcome(item, Said(text, True)) == outcome
    assert asker._outcome(item, Said("x", False)) == "unfinished"


def test_an_interrupted_run_goes_on(vlm, data, made, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_ROWS", 5)
    ask, calls = Asker.ask, []

    def asked(self, rows, on_rows):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(len(rows))
        return ask(self, rows, on_rows)

    settings = {"map": MAP, "functions": "counting", "batch_size": 4, "out": tmp_path / "out", **QUIET}
    monkeypatch.setattr(Asker, "ask", asked)
    with pytest.raises(KeyboardInterrupt):
        vfl.negatives(data, vlm, **settings)
    monkeypatch.setattr(Asker, "ask", ask)
    with pytest.raises(InputError, match="--resume to go on"):
        vfl.negatives(data, vlm, **settings)
    with pytest.raises(InputError, match="other settings"):
        vfl.negatives(data, vlm, resume=True, only_answered=True, **settings)
    before = (tmp_path / "out" / "parts" / "00000.json").read_bytes()
    result = vfl.negatives(data, vlm, resume=True, **settings)
    assert calls == [5]
    assert json.loads(before)["rows"][0] == lines(tmp_path / "out" / "answers.jsonl")[0]
    for name in ("negatives.jsonl", "answers.jsonl", "manifest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (made[0] / name).read_bytes()
    assert result == made[1]


def test_rows_that_changed_are_not_taken_for_those_that_were_asked(data, tmp_path):
    rows = list(read(data))
    parts.write_json(tmp_path / "00000.json", {"key": parts.digest(rows[1:], ["m"]), "rows": []})
    with pytest.raises(InputError, match="--overwrite"):
        next(parts.asked_in_parts(iter(rows), tmp_path, ["m"], lambda some: []))
    (tmp_path / "00000.json").write_text('{"key": ')
    assert list(parts.asked_in_parts(iter(rows), tmp_path, ["m"], lambda some: [])) == [[]]


@pytest.mark.parametrize(
    ("layers", "expected"), [("7,2-3", [2, 3, 7]), ("all", list(range(10))), ("none", []), (None, READS)]
)
def test_which_layers(vlm, layers, expected):
    chosen = {"blind": layers} if layers else {"map": MAP, "functions": "counting"}
    assert blind_layers(NegativesConfig(data="d", out="o", **chosen), vlm) == expected


def test_random_layers_follow_from_the_seed(vlm):
    draws = [blind_layers(NegativesConfig(data="d", out="o", blind="random:3", seed=seed), vlm) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert all(len(set(draw)) == 3 for draw in draws)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "either map with functions, or blind"),
        (["--blind", "3", "--map", MAP, "--functions", "ocr"], "either map with functions, or blind"),
        (["--map", MAP], "map and functions belong together"),
        (["--map", MAP, "--functions", "reading"], "no function reading"),
        (["--blind", "12"], "0 to 9"),
        (["--blind", "random:11"], "random:1 to random:10"),
        (["--blind", "some"], "no list of layers"),
        (["--blind", "none", "--only-answered"], "leave one out"),
        (["--blind", "none", "--first", "1"], "gives a preference pair (1: the blind answer is the chosen one)"),
    ],
)
def test_bad_input_is_one_paragraph(vfl_command, data, tmp_path, arguments, said):
    code, _, errors = vfl_command("negatives", data, "--out", tmp_path / "out", *arguments)
    assert code == 2
    assert said in " ".join(errors.split())
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_row_that_can_not_be_used(vfl_command, data, tmp_path):
    rows = data.read_text().splitlines()[:3]
    bad = json.loads(rows[0]) | {"id": "bad", "images": ["none.png"]}
    path = data.parent / "bad.jsonl"
    path.write_text("\n".join([*rows, json.dumps(bad)]))
    options = ["--blind", "5", "--dtype", "float32", "--out", tmp_path / "out"]
    code, _, errors = vfl_command("negatives", path, *options)
    assert code == 2
    assert "none.png" in errors
    assert "--on-bad-row skip" in errors
    code, printed, errors = vfl_command("negatives", path, *options, "--on-bad-row", "skip", "--resume")
    assert code == 2
    assert "other settings" in errors
    code, printed, errors = vfl_command("negatives", path, *options, "--on-bad-row", "skip", "--overwrite")
    assert code == 0, errors
    assert "bad row" in printed
    assert "4 rows" in printed
    assert yaml.safe_load((tmp_path / "out" / "settings.yaml").read_text())["blind"] == [5]


def test_the_rows_train_with_dpo_as_they_lie(data, tmp_path):
    """A real process makes the folder, and it is a recipe's data as it is."""
    out = tmp_path / "negatives"
    arguments = ["negatives", data, "--map", MAP, "--functions", "counting", "--dtype", "float32", "--out", out]
    done = warm.finished(["-c", "from vfl.commands.main import run; run()", *map(str, arguments)], environment())
    assert done.returncode == 0, done.stderr
    assert "Blind at layers 5" in done.stdout
    trainer = {
        "max_steps": 3,
        "per_device_train_batch_size": len(lines(out / "negatives.jsonl")),  # all rows, so that losses compare
        "learning_rate": 2e-3,
        "warmup_steps": 0,
        "logging_steps": 1,
        "disable_tqdm": True,
        "save_strategy": "no",
    }
    recipe = {
        "out": str(tmp_path / "dpo"),
        "method": "dpo",
        "dtype": "float32",
        "data": {"train": str(out)},
        "layers": [5],
        "lora": {"r": 4},
        "trainer": trainer,
    }
    assembled = assemble(Recipe.model_validate(recipe), progress=False)
    assert len(assembled.prepared.rows) == len(lines(out / "negatives.jsonl"))
    assembled.trainer.train()
    losses = [entry["loss"] for entry in assembled.trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3), "at first the model is its own reference"
    assert losses[-1] < losses[0]
