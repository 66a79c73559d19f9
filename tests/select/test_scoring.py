"""A scoring run can be stopped at any moment, shared by processes that die, and holds the same rows in the end."""

import json
import shutil
import time
from pathlib import Path

import pytest
import score_rows
import warm

import vfl
import vfl.select.score.run
from vfl.data import read
from vfl.errors import InputError
from vfl.functionmap import FunctionMap
from vfl.select.score.run import main, score
from vfl.select.score.worker import rows_of_parts
from vfl.select.settings import ScoreConfig
from vfl.select.shards.parts import Walker, clear
from vfl.select.shards.score_folder import open_scores

pytestmark = pytest.mark.long

MAP = Path(__file__).parents[2] / "recipes" / "micro" / "map.json"
ROWS, PART = 40, 4


@pytest.fixture(scope="module")
def embedded():
    return vfl.load()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """40 rows, one of them without its image."""
    folder = tmp_path_factory.mktemp("data")
    rows = score_rows.rows_of(folder, ROWS // 4)
    rows[7]["image"] = "images/nowhere.png"
    return score_rows.write(folder, rows)


@pytest.fixture(scope="module")
def config(data):
    """config(out, ...) for that data."""
    fixed = {"data": data, "layers": score_rows.LAYERS, "shard_rows": PART, "on_bad_row": "skip"}
    return lambda out, **more: ScoreConfig(**fixed | {"out": out} | more)


@pytest.fixture(scope="module")
def whole(config, embedded, tmp_path_factory):
    """Scores of an uninterrupted run."""
    return score(config(tmp_path_factory.mktemp("whole") / "scores"), vlm=embedded, progress=False)


@pytest.fixture(scope="module")
def start(data):
    """start(out, ...) -> a process of its own that scores; those that a test leaves are killed."""
    started = []
    code = "import sys; from vfl.select.score.run import main; sys.exit(main(sys.argv[1:]))"

    def _start(out, *settings):
        arguments = [f"data={data}", f"out={out}", f"shard_rows={PART}", "batch_size=2", "on_bad_row=skip", *settings]
        arguments += [f"layers.{name}={layers}" for name, layers in score_rows.LAYERS.items()]
        process = warm.Process(["-c", code, *arguments])
        started.append(process)
        return process

    yield _start
    for process in started:
        process.kill()


def same(scores, whole):
    """The same rows, each once."""
    score_rows.assert_alike(score_rows.table(scores), score_rows.table(whole))
    assert score_rows.errors(scores) == score_rows.errors(whole)


def files(scores):
    """Name, number and time of each part: what was written once and not again."""
    return {(file.name, file.stat().st_ino, file.stat().st_mtime_ns) for file in (scores / "parts").glob("part-*")}


def wait_for(condition, process=None):
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        if process is not None and process.poll() is not None:
            return
        time.sleep(0.01)


def claimed(scores):
    """Part -> process that holds it."""
    found = {}
    for file in (scores / "claims").glob("part-*"):
        try:
            found[file.stem] = json.loads(file.read_text())["pid"]
        except (FileNotFoundError, ValueError):
            continue
    return found


def test_the_manifest_says_what_was_scored(whole, data):
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["functions"] == score_rows.LAYERS
    assert manifest["counts"]["rows"] == ROWS
    assert manifest["counts"]["scored"] == ROWS - 1 == manifest["counts"]["vision"]
    assert manifest["counts"]["errors"] == 1
    assert manifest["model"]["parameters"] > 0
    assert manifest["model"]["weights_sha256"]
    assert [Path(one["path"]) for one in manifest["sources"]] == [data]
    assert Path(manifest["settings"]["data"][0]).is_absolute()
    assert {path.name for path in whole.iterdir()} == {
        "settings.yaml",
        "plan.json",
        "manifest.json",
        "errors.parquet",
        "classes.parquet",
        "parts",
    }
    assert len(score_rows.errors(whole)) == 1


def test_functions_with_the_same_layers_are_one_class_of_two(config, embedded, whole, tmp_path, caplog):
    """The shared name has the columns and the layers, and counts for both; its numbers are those of either alone."""
    shared = {"counting": [5], "ocr": [5]}
    scores = open_scores(score(config(tmp_path / "scores", layers=shared), vlm=embedded, progress=False))
    assert "counting, ocr have the same layers (5)" in caplog.text
    assert scores.functions == ("counting and ocr",)
    assert scores.manifest["functions"] == {"counting and ocr": [5]}
    assert [scores.standing_for(name) for name in ("counting and ocr", "counting")] == [2, 1]
    found, alone = score_rows.table(scores.path), score_rows.table(whole)
    assert [row["drop_counting and ocr"] for row in found] == [row["drop_counting"] for row in alone]


def test_a_dead_process_s_part_is_picked_up_by_the_others(start, whole, tmp_path):
    scores = tmp_path / "scores"
    processes = [start(scores) for _ in range(3)]
    pids = {process.pid: process for process in processes}
    killed = None

    def kill_an_owner():
        nonlocal killed
        owners = set(claimed(scores).values())
        if len(files(scores)) >= 2 and owners & set(pids):
            killed = pids[(owners & set(pids)).pop()]
            killed.kill()
        return killed is not None

    wait_for(kill_an_owner)
    assert [process.finish().returncode for process in processes if process is not killed] == [0, 0]
    same(scores, whole)


def test_woken_after_another_ended_the_run_it_ends_well(config, embedded, whole, tmp_path, monkeypatch):
    """What it was writing is gone: the other took it for dead, and tidied up."""
    scores = tmp_path / "scores"

    def ended_by_another(*_):
        shutil.copytree(whole, scores, dirs_exist_ok=True)
        raise FileNotFoundError(2, "No such file or directory", str(scores / "failed" / ".part-000000.parquet.77.tmp"))

    monkeypatch.setattr("vfl.select.score.worker.save", ended_by_another)
    assert score(config(scores), vlm=embedded, progress=False) == scores
    same(scores, whole)


def test_a_finished_run_is_left_as_it_is(config, embedded, whole):
    before = files(whole), (whole / "manifest.json").stat().st_mtime_ns
    assert score(config(whole, batch_size=3, workers=1), vlm=embedded, progress=False) == whole
    assert (files(whole), (whole / "manifest.json").stat().st_mtime_ns) == before


def test_other_scores_are_refused_unless_overwritten(config, embedded, whole, data, tmp_path):
    scores = tmp_path / "scores"
    other = tmp_path / "other"
    other.mkdir()
    few = score_rows.write(other, json.loads(data.read_text())[:3])
    settings = config(scores, data=str(few), images=data.parent)
    score(settings, vlm=embedded, progress=False)
    for given, told in (
        ({"layers": {"ocr": [3]}}, "functions"),
        ({"ablation": "blank"}, "ablation"),
        ({"shard_rows": 9}, "shard_rows"),
        ({"data": (data,)}, "data"),
        ({"max_length": 50}, "max_length"),
    ):
        with pytest.raises(InputError, match=f"another run.*{told}"):
            score(settings.model_copy(update=given), vlm=embedded, progress=False)
    with pytest.raises(InputError, match=r"another run.*map"):
        score(settings, vlm=embedded, fmap=FunctionMap.load(MAP), progress=False)
    score(settings.model_copy(update={"layers": {"ocr": [3]}}), vlm=embedded, progress=False, overwrite=True)
    assert json.loads((scores / "manifest.json").read_text())["functions"] == {"ocr": [3]}
    with pytest.raises(InputError, match="other files"):
        score(config(other), vlm=embedded, progress=False, overwrite=True)


def test_killed_while_it_overwrites_the_same_command_goes_on(config, embedded, whole, tmp_path, monkeypatch):
    scores = tmp_path / "scores"
    shutil.copytree(whole, scores)

    def killed(folder, **_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            score(config(scores), vlm=embedded, progress=False, overwrite=True)
    assert not (scores / "manifest.json").exists()
    clear(scores)
    assert not [*scores.iterdir()]


def test_changed_data_is_refused_and_moved_data_is_not(config, embedded, data, tmp_path):
    few = json.loads(data.read_text())[:3]
    path = score_rows.write(tmp_path, few)
    settings = config(tmp_path / "scores", data=str(path), images=data.parent)
    score(settings, vlm=embedded, progress=False)
    moved = tmp_path / "moved.json"
    path.rename(moved)
    score(settings.model_copy(update={"data": (moved,)}), vlm=embedded, progress=False)
    moved.write_text(json.dumps(few[:2]))
    with pytest.raises(InputError, match="data"):
        score(settings.model_copy(update={"data": (moved,)}), vlm=embedded, progress=False)


def test_a_bad_row_stops_before_the_run_or_at_the_row(config, embedded, tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.png"):
        score(config(tmp_path / "scores", on_bad_row="error"), vlm=embedded, progress=False)
    assert not files(tmp_path / "scores")


def test_no_row_at_all_is_an_error(config, embedded, data, tmp_path):
    bad = json.loads(data.read_text())[7:8]
    path = score_rows.write(tmp_path, bad)
    with pytest.raises(InputError, match="1 of 1 rows could not be scored"):
        score(config(tmp_path / "scores", data=str(path), images=data.parent), vlm=embedded, progress=False)


def test_a_dataset_in_a_notebook(embedded, data, tmp_path):
    import datasets

    rows = [
        {
            "id": row["id"],
            "images": [str(data.parent / row["image"])],
            "source": row["source"],
            "messages": [
                {"role": "user", "content": row["conversations"][0]["value"]},
                {"role": "assistant", "content": row["conversations"][1]["value"]},
            ],
        }
        for row in json.loads(data.read_text())[:5]
    ]
    dataset = datasets.Dataset.from_list(rows)
    given = {"model": embedded, "map": FunctionMap.load(MAP), "images": data.parent, "progress": False}
    scores = vfl.select.score.run.score_data(dataset, out=tmp_path / "scores", **given)
    found = score_rows.table(scores.folder)
    assert [row["uid"] for row in found] == [row["id"] for row in rows]
    assert scores.manifest["settings"]["data"] is None
    assert scores.functions == {name: entry.layers for name, entry in FunctionMap.load(MAP).functions.items()}
    assert set(scores.lost()) == {"image", *scores.functions}
    assert vfl.select.score.run.score_data(dataset, out=tmp_path / "scores", **given) == scores
    with pytest.raises(InputError, match="data"):
        vfl.select.score.run.score_data(dataset.select(range(3)), out=tmp_path / "scores", **given)


def test_the_command_says_what_is_wrong(data, tmp_path, capsys):
    assert main([f"data={data}", f"out={tmp_path / 's'}", "batc=2"]) == 2
    assert "unknown key 'batc'" in capsys.readouterr().err
    assert main([f"out={tmp_path / 's'}"]) == 2
    assert "No data" in capsys.readouterr().err
    assert main([f"data={data.parent / 'none.json'}", f"out={tmp_path / 's'}"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_overwriting_is_for_one_process(config, embedded, whole, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="several processes"):
        score(config(whole), vlm=embedded, progress=False, overwrite=True)
    assert files(whole)


class Plan:
    rows, shard_rows = 10, 4

    def rows_of(self, part):
        return min(4, 10 - 4 * part)


def test_parts_are_cut_alike_in_whatever_order_they_are_asked_for(data):
    every = list(enumerate(read(data)))[:10]
    read_times = []

    class Data:
        def __init__(self, count):
            self.count = count

        def rows(self):
            read_times.append(1)
            return (row for _, row in every[: self.count])

    walker = Walker(Data(10), Plan())
    for part, begins in ((0, 1), (2, 1), (1, 2), (1, 3), (2, 3)):
        assert list(walker.rows_of(part)) == every[4 * part : 4 * part + 4]
        assert len(read_times) == begins
    short = Walker(Data(9), Plan())
    with pytest.raises(InputError, match="ends at row 9 of 10"):
        list(short.rows_of(2))


def test_parts_are_large_and_still_enough_for_all_processes():
    for rows, size, processes, expected in (
        (10**7, 10**9, 8, 2048),  # names of images
        (10**6, 10**11, 8, 2684),  # 100 kB an image: cut by PART_ROWS
        (10**6, 10**12, 8, 268),  # 1 MB an image
        (10**6, 10**13, 8, 64),
        (4_000, 10**6, 1, 500),
        (4_000, 10**6, 8, 64),
        (40, 10**4, 1, 64),
    ):
        assert rows_of_parts(rows, size, processes) == min(expected, 2048)
