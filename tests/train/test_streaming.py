"""Training on pictures that are read from parquet files where they lie: nothing else about a run is different."""

import base64
import json
import os
import shutil
import signal
from pathlib import Path

import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ranked
import torch
import trained
import warm
from hub_stub import TOKEN, HubStub

import vfl
from vfl.data import cell as cells
from vfl.errors import InputError
from vfl.io.cache import cache_home
from vfl.io.config import read_yaml
from vfl.io.hub_in_place import pinned
from vfl.models.conversation import encoder_of
from vfl.train.assemble import assemble
from vfl.train.check import preflight_of
from vfl.train.data_config import DataConfig
from vfl.train.launch import main
from vfl.train.recipe import read_recipe
from vfl.train.rows import set_on_disk
from vfl.train.rows.collate import opened
from vfl.train.rows.prepare import prepare
from vfl.train.rows.row_groups import GroupedOrder, row_groups
from vfl.train.trainers import LayerSFTTrainer

KINDS = trained.SHORT_KINDS
IN_ORDER = {"train_sampling_strategy": "sequential"}
PNG = b"\x89PNG"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty one."""
    monkeypatch.setenv("VFL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def chunks(monkeypatch):
    """Those of this process, empty."""
    kept = cells.Chunks(cells.MOST_KEPT)
    monkeypatch.setitem(cells._of_process, os.getpid(), kept)
    return kept


@pytest.fixture(scope="module")
def encoder(qwen):
    return encoder_of(vfl.load(qwen, device="cpu"))


@pytest.fixture
def parquet(data_of, tmp_path):
    """The rows of these kinds as parquet files with their pictures, of three rows a row group; `more` bytes each."""

    def written(*kinds, files=2, more=0):
        data = data_of(*kinds)
        rows = [json.loads(line) for line in data.read_text().splitlines()]
        for row in rows:
            shown = [(name, (data.parent / name).read_bytes()) for name in row["images"]]
            row["images"] = [{"bytes": content + os.urandom(more), "path": name} for name, content in shown]
        folder = tmp_path / f"data{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        share = -(-len(rows) // files)
        for number in range(files):
            table = pa.Table.from_pylist(rows[number * share : (number + 1) * share])
            pq.write_table(table, folder / f"train-{number}.parquet", row_group_size=3)
        return folder

    return written


def pictures(folder):
    """Files below a folder that hold a picture."""
    return [path for path in folder.rglob("*") if path.is_file() and PNG in path.read_bytes()]


def prepared(encoder, path, method="sft", **config):
    return prepare(DataConfig(train=(path,), **config), encoder, method=method, progress=False)


def test_rows_are_the_same_and_no_picture_is_copied(encoder, parquet, cache, chunks):
    path = parquet(*KINDS)
    copied = prepared(encoder, path)
    assert pictures(cache)
    shutil.rmtree(cache)
    streamed = prepared(encoder, path, streaming=True, workers=0)
    assert not pictures(cache)
    assert chunks.readings == 4, "each row group once"
    assert (streamed.text, streamed.image) == (copied.text, copied.image)
    assert streamed.facts == copied.facts
    for name in copied.rows.column_names:
        if name != "images":
            assert streamed.rows[name] == copied.rows[name]


def test_processes_that_check_rows_come_to_the_same(encoder, parquet, cache):
    path = parquet(*KINDS * 8)
    alone = prepared(encoder, path, streaming=True, workers=0)
    shutil.rmtree(cache)
    together = prepared(encoder, path, streaming=True, workers=2)
    assert (together.text, together.image) == (alone.text, alone.image)


def test_weights_are_those_of_a_run_that_copies_its_pictures(qwen, parquet, run, cache, tmp_path):
    path = parquet(*KINDS)
    settings = trained.SHORT | {"trainer": trained.SHORT["trainer"] | IN_ORDER}
    run(qwen, path, tmp_path / "copied", **settings)
    shutil.rmtree(cache)
    run(qwen, path, tmp_path / "streamed", data={"streaming": True}, **settings)
    assert not pictures(cache)
    assert sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) < 100_000
    assert trained.same(trained.weights(tmp_path / "streamed"), trained.weights(tmp_path / "copied"))
    assert trained.metric_lines(tmp_path / "streamed") == trained.metric_lines(tmp_path / "copied")


def streaming(**trainer):
    return trained.SHORT | {"data": {"streaming": True}, "trainer": trained.SHORT["trainer"] | trainer}


def test_workers_read_the_same_rows(qwen, parquet, run, tmp_path):
    """The order is made for one process here, and read by another."""
    path = parquet(*KINDS)
    run(qwen, path, tmp_path / "none", **streaming())
    run(qwen, path, tmp_path / "one", **streaming(dataloader_num_workers=1))
    assert trained.same(trained.weights(tmp_path / "one"), trained.weights(tmp_path / "none"))
    flight = json.loads((tmp_path / "one" / "preflight.json").read_text())
    assert flight["order"]["readers"] == 1
    assert "pictures are read from 4 row groups" in flight["order"]["sentence"]
    assert "pictures are read from 4 row groups" in (tmp_path / "one" / "adapter" / "README.md").read_text()


@pytest.mark.parametrize("step", [2, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_is_the_whole_run(qwen, parquet, run, tmp_path, step, workers):
    """Within the first epoch and within the second, with other processes that read as well."""
    path, out, whole = parquet(*KINDS), tmp_path / "run", tmp_path / "whole"
    run(qwen, path, whole, **streaming(dataloader_num_workers=2, save_total_limit=9))
    shutil.copytree(whole, out)
    shutil.rmtree(out / "adapter")
    (out / "report.html").unlink()
    for folder in (out / "checkpoints").iterdir():
        if int(folder.name.rpartition("-")[2]) > step:
            shutil.rmtree(folder)
    again = streaming(dataloader_num_workers=workers, save_total_limit=9)
    run(qwen, path, out, how={"resume": True}, **again)
    assert trained.same(trained.weights(out), trained.weights(whole))
    assert trained.metric_lines(out) == trained.metric_lines(whole)


@pytest.mark.parametrize("streams", [True, False])
def test_a_run_is_not_resumed_with_other_rows(qwen, parquet, run, tmp_path, streams):
    path, out = parquet(*KINDS, files=1), tmp_path / "run"
    settings = streaming(save_total_limit=9) if streams else {"trainer": streaming(save_total_limit=9)["trainer"]}
    run(qwen, path, out, **settings)
    shutil.rmtree(out / "adapter")
    (out / "report.html").unlink()
    (file,) = path.iterdir()
    table = pq.read_table(file)
    pq.write_table(table.take(list(reversed(range(table.num_rows)))), file, row_group_size=3)
    with pytest.raises(InputError, match=r"was changed since the interrupted run in .* began: .*Put the old data back"):
        run(qwen, path, out, how={"resume": True}, **settings)


def test_a_seed_of_the_order_is_taken(qwen, parquet, tmp_path):
    path = parquet(*("image",) * 12)

    def order(**trainer):
        settings = trained.settings(qwen, path, tmp_path / "run", **streaming(**trainer))
        return assemble(read_recipe(settings), progress=False).order.order()

    assert order() == order()
    assert order(data_seed=5) != order(data_seed=6)


def test_a_killed_run_goes_on_to_the_same_weights(qwen, parquet, run, tmp_path):
    path, out, whole = parquet(*KINDS), tmp_path / "run", tmp_path / "whole"
    settings = streaming(dataloader_num_workers=1, save_steps=1)
    run(qwen, path, whole, **settings)
    pid = os.fork()
    if pid == 0:
        step = LayerSFTTrainer.training_step

        def until_the_second_epoch(trainer, *arguments, **options):
            if trainer.state.global_step == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(trainer, *arguments, **options)

        LayerSFTTrainer.training_step = until_the_second_epoch
        run(qwen, path, out, **settings)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    run(qwen, path, out, how={"resume": True}, **settings)
    assert trained.same(trained.weights(out), trained.weights(whole))
    assert trained.metric_lines(out) == trained.metric_lines(whole)


def test_row_groups_are_read_once_an_epoch(qwen, parquet, tmp_path, chunks, monkeypatch):
    path = parquet(*KINDS * 6)
    recipe = read_recipe(trained.settings(qwen, path, tmp_path / "run", data={"streaming": True}))
    parts = assemble(recipe, progress=False)
    groups = len(parts.order.groups)
    held = sum(group.size > 0 for group in parts.order.groups)
    assert groups > held, "rows without pictures are by themselves"
    before = chunks.readings
    epochs = []
    for epoch in range(2):
        parts.order.epoch = epoch
        rows = [row["uid"] for batch in _batches(parts) for row in batch]
        epochs.append(rows)
        assert sorted(rows) == sorted(parts.prepared.rows["uid"])
    assert epochs[0] != epochs[1]
    assert chunks.readings - before == 0, "all of it fits"
    monkeypatch.setattr(chunks, "most", 2 * max(group.size for group in parts.order.groups))
    monkeypatch.setattr("vfl.train.rows.row_groups.in_turn_of_groups.__defaults__", (None, chunks.most // 2))
    chunks._let_go(0)
    before = chunks.readings
    assert sum(len(batch) for batch in _batches(parts)) == len(parts.prepared.rows)
    assert held <= chunks.readings - before <= 1.3 * held


def test_each_worker_reads_row_groups_of_its_own(qwen, parquet, tmp_path):
    path = parquet(*("image", "images") * 30, files=1)
    trainer = {"dataloader_num_workers": 2}
    recipe = read_recipe(trained.settings(qwen, path, tmp_path / "run", data={"streaming": True}, trainer=trainer))
    parts = assemble(recipe, progress=False)
    parts.trainer.data_collator = lambda rows: {
        "process": torch.tensor([os.getpid()] * len(rows)),
        "group": torch.tensor([row["images"][0]["group"] for row in rows]),
    }
    seen = {
        (process, group)
        for batch in parts.trainer.get_train_dataloader()
        for process, group in zip(batch["process"].tolist(), batch["group"].tolist(), strict=True)
    }
    assert len({process for process, _ in seen}) == 2
    assert len({group for _, group in seen}) == 20
    assert len(seen) <= 21, "all but a last one are read by one of the two"


def _batches(parts):
    """The batches of an epoch, each of whose rows was opened."""
    taken = []
    collate = parts.trainer.data_collator
    parts.trainer.data_collator = lambda rows: taken.append(rows) or collate(rows)
    try:
        for _ in parts.trainer.get_train_dataloader():
            pass
    finally:
        parts.trainer.data_collator = collate
    return taken


def test_preferences_and_labels_go_too(qwen, parquet, data_of, run, tmp_path, cache):
    run(qwen, parquet(*("pair",) * 6), tmp_path / "dpo", method="dpo", data={"streaming": True})
    folder = parquet(*("image",) * 6)
    for path in folder.iterdir():
        table = pq.read_table(path)
        labels = pa.array([n % 2 == 0 for n in range(table.num_rows)])
        pq.write_table(table.append_column("label", labels), path, row_group_size=3)
    run(qwen, folder, tmp_path / "kto", method="kto", data={"streaming": True})
    assert not pictures(cache)
    assert json.loads((tmp_path / "kto" / "preflight.json").read_text())["order"]
    # Which is all that TRL's trainer takes under KTO.
    run(qwen, folder, tmp_path / "same", method="kto", data={"streaming": True}, trainer=IN_ORDER)
    assert json.loads((tmp_path / "same" / "preflight.json").read_text())["order"]


def test_sets_with_weights_old_held_out_and_evaluated_rows_go_too(qwen, parquet, data_of, run, tmp_path, cache):
    train = [{"path": str(parquet(*KINDS)), "weight": 1}, {"path": str(data_of("image", "image")), "weight": 1}]
    run(
        qwen,
        parquet("image"),
        tmp_path / "run",
        data={"streaming": True, "train": train, "replay": {"data": str(parquet("image", "images")), "share": 0.2}},
        evaluation={
            "heldout": str(parquet("image", "text")),
            "data": {"own": {"path": str(parquet("image", "image")), "max_new_tokens": 2}},
        },
    )
    assert json.loads((tmp_path / "run" / "preflight.json").read_text())["data"]["replay"] > 0
    assert not pictures(cache)
    assert any("eval_loss" in line for line in trained.metric_lines(tmp_path / "run"))


def exit_code(qwen, path, out, capfd, **changed):
    """Of the command, and what it says."""
    recipe = trained.write_recipe(out.with_suffix(".yaml"), trained.settings(qwen, path, out, **changed))
    code = main([str(recipe)])
    return code, capfd.readouterr().err


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("fault", ["gone", "changed"])
def test_a_file_that_changes_meanwhile_ends_the_run_in_words(
    qwen, parquet, tmp_path, capfd, chunks, monkeypatch, workers, fault
):
    path = parquet(*KINDS, files=1)
    file = path / "train-0.parquet"

    def flight(*arguments):
        found = preflight_of(*arguments)
        chunks._let_go(0)
        if fault == "gone":
            file.unlink()
        else:
            pq.write_table(pq.read_table(file).slice(1), file)
        return found

    monkeypatch.setattr("vfl.train.run.preflight_of", flight)
    code, said = exit_code(
        qwen, path, tmp_path / "run", capfd, data={"streaming": True}, trainer={"dataloader_num_workers": workers}
    )
    assert code == 2
    assert "train-0.parquet row" in said
    assert ("is not there any more" if fault == "gone" else "was changed") in said
    assert "Traceback" not in said


def test_a_picture_that_is_none_is_a_bad_row(encoder, parquet, cache):
    path = parquet("image", "image", "image", files=1) / "train-0.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[1]["images"][0]["bytes"] = b"no picture"
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(InputError, match=r"1 of 3 rows can't be used: train-0.parquet row 2 .*cannot be decoded"):
        prepared(encoder, path, streaming=True)
    assert len(prepared(encoder, path, streaming=True, on_bad_row="skip").rows) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_cannot_be_read_for_once_is_no_bad_row(encoder, parquet, cache, monkeypatch, workers):
    path, opening, broken = parquet(*KINDS), cells.opened, True

    def opened_at_times(file, **how):
        if broken:
            raise OSError(5, "Input/output error")
        return opening(file, **how)

    monkeypatch.setattr(cells, "opened", opened_at_times)
    cells._footer.cache_clear()
    with pytest.raises(InputError, match=r"row 1 in row group 1 of .*Input/output error.*Put the file back whole"):
        prepared(encoder, path, streaming=True, workers=workers, on_bad_row="skip")
    assert not list((cache_home() / "rows").glob("[!.]*"))
    broken = False
    assert prepared(encoder, path, streaming=True, workers=workers, on_bad_row="skip").facts.bad == 0


def test_a_lack_of_memory_is_no_fault_of_the_file(encoder, parquet, monkeypatch):
    def no_memory(file, **how):
        raise pa.ArrowMemoryError("malloc failed")

    monkeypatch.setattr(cells, "opened", no_memory)
    with pytest.raises(MemoryError, match="malloc failed"):
        prepared(encoder, parquet("image", files=1), streaming=True, workers=0)


def test_what_would_be_copied_is_refused(encoder, data_of, tmp_path, monkeypatch, parquet):
    data = data_of("image", "image")
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for row in rows:
        row["images"] = [base64.b64encode((data.parent / row["images"][0]).read_bytes()).decode()]
    path = tmp_path / "base64.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"base64.jsonl line 1 .*Write the rows as parquet"):
        prepared(encoder, path, streaming=True)
    monkeypatch.setattr("vfl.train.rows.table.MOST_KEPT", 100)
    with pytest.raises(InputError, match=r"train-0.parquet: row group 1 has .*smaller row groups"):
        prepared(encoder, parquet("image", files=1), streaming=True)
    assert not list((cache_home() / "rows").glob("[!.]*"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"packing": True}, "packing lays rows of any row groups together"),
        ({"method": "grpo"}, "leave streaming out"),
        ({"trainer": {"train_sampling_strategy": "group_by_length"}}, "train_sampling_strategy: group_by_length"),
    ],
)
def test_what_has_an_order_of_its_own_is_refused(changed, said):
    data = {"train": "rows.parquet", "streaming": True, "max_length": 100}
    with pytest.raises(InputError, match=said):
        read_recipe({"out": "run", "layers": [1], "data": data, **changed})


@pytest.fixture
def hub(monkeypatch):
    with HubStub() as stub:
        monkeypatch.setenv("HF_ENDPOINT", stub.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        yield stub


def test_what_lies_on_the_hub_is_read_there(hub, qwen, parquet, run, cache, tmp_path, chunks):
    folder = parquet(*KINDS)
    files = {f"data/{path.name}": path.read_bytes() for path in sorted(folder.iterdir())}
    hub.repos["datasets/me/rows"] = files | {"README.md": b"rows", "data/model.bin": b"code"}
    settings = trained.SHORT | {"trainer": trained.SHORT["trainer"] | IN_ORDER}
    run(qwen, folder, tmp_path / "copied", **settings)
    shutil.rmtree(cache)
    address = "hf://datasets/me/rows"
    run(qwen, address, tmp_path / "streamed", data={"streaming": True}, **settings)
    assert not pictures(cache)
    assert not (cache / "hub").exists(), "nothing was fetched"
    assert trained.same(trained.weights(tmp_path / "streamed"), trained.weights(tmp_path / "copied"))
    saved = read_yaml(tmp_path / "streamed" / "settings.yaml")["data"]["train"]
    commit = hub.sha("datasets/me/rows")
    assert saved == [f"{address}@{commit}"]
    hub.repos["datasets/me/rows"] = {"data/other.parquet": b"PAR1"}
    assert read_recipe(tmp_path / "streamed" / "settings.yaml").data.train[0].path == (Path(saved[0]),)


def test_of_the_hub_row_groups_are_sent_once(hub, encoder, parquet, chunks):
    folder = parquet(*KINDS * 4, more=50_000)
    hub.repos["datasets/me/rows"] = files = {path.name: path.read_bytes() for path in folder.iterdir()}
    config = DataConfig(train=(Path(pinned("hf://datasets/me/rows")),), streaming=True, workers=0)
    rows = prepare(config, encoder, method="sft", progress=False).rows
    size = sum(map(len, files.values()))
    assert hub.sent < 3.5 * size, "once to name the rows, once to check them, and the ends of the files"
    chunks._let_go(0)
    before = hub.sent
    assert all(opened(row) for row in rows)
    assert hub.sent - before < 1.1 * size


def test_of_the_hub_processes_read_by_themselves(hub, qwen, parquet, run, tmp_path):
    folder = parquet(*KINDS)
    hub.repos["datasets/me/rows"] = {path.name: path.read_bytes() for path in folder.iterdir()}
    run(qwen, "hf://datasets/me/rows", tmp_path / "hub", **streaming(dataloader_num_workers=1))
    run(qwen, folder, tmp_path / "here", **streaming())
    assert trained.same(trained.weights(tmp_path / "hub"), trained.weights(tmp_path / "here"))


def named_only(folder):
    """A parquet file whose rows name their pictures."""
    rows = pq.read_table(folder).to_pylist()
    for row in rows:
        row["images"] = [image["path"] for image in row["images"]]
    pq.write_table(pa.Table.from_pylist(rows), folder.parent / "names.parquet")
    return (folder.parent / "names.parquet").read_bytes()


def test_a_hub_that_is_away_for_a_while_is_no_fault_of_the_rows(hub, encoder, parquet, monkeypatch):
    hub.repos["datasets/me/rows"] = files = {
        path.name: path.read_bytes() for path in parquet("image", files=1).iterdir()
    }
    address, checking = Path(pinned("hf://datasets/me/rows")), set_on_disk._check_all

    def away(*arguments):
        hub.repos["datasets/me/rows"] = {}
        hub._known.clear()
        return checking(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(set_on_disk, "_check_all", away)
        with pytest.raises(InputError, match=r"train-0.parquet is not there any more|train-0.parquet cannot be read"):
            prepared(encoder, address, streaming=True, workers=0)
    hub.repos["datasets/me/rows"] = files
    hub._known.clear()
    assert len(prepared(encoder, address, streaming=True, workers=0).rows) == 1


def test_of_the_hub_what_cannot_be_read_there_is_said(hub, encoder, parquet, monkeypatch):
    with pytest.raises(InputError, match="is not on the hub"):
        read_recipe({"out": "run", "layers": [1], "data": {"train": "hf://datasets/me/none", "streaming": True}})
    hub.repos["datasets/me/lines"] = {"rows.jsonl": b"{}\n"}
    address = Path(pinned("hf://datasets/me/lines"))
    with pytest.raises(InputError, match=r"holds .jsonl files, and streaming reads parquet"):
        prepared(encoder, address, streaming=True)
    folder = parquet("image", "image")
    hub.repos["datasets/me/rows"] = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.repos["datasets/me/names"] = {"names.parquet": named_only(folder)}
    with pytest.raises(InputError, match=r"names.parquet row 1 .*say with `images` in which folder it lies"):
        prepared(encoder, Path("hf://datasets/me/names"), streaming=True)
    rows = prepared(encoder, Path(pinned("hf://datasets/me/rows/train-0.parquet")), streaming=True).rows
    assert len(rows) == 1
    cells._chunks()._let_go(0)
    hub.repos["datasets/me/rows"] = {}
    hub._known.clear()
    with pytest.raises(InputError, match=r"train-0.parquet row 1 .*train-0.parquet"):
        opened(rows[0])
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.__exit__()
    with pytest.raises(InputError, match=r"train-0.parquet row 1 .*Is the hub within reach"):
        opened(rows[0])


@pytest.mark.long
def test_two_ranks_train_what_one_process_does(qwen, parquet, run, tmp_path, monkeypatch):
    """Each reads row groups of its own, in the order that is made for two."""
    path = parquet(*("image", "image", "turns", "images") * 3)
    steps = {"max_steps": 3, "max_grad_norm": 1.0, **trained.STEADY}
    split = steps | {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    values = trained.settings(qwen, path, tmp_path / "ranks", trainer=split, data={"streaming": True})
    recipe = trained.write_recipe(tmp_path / "ranks.yaml", values)
    done = warm.ranks([str(ranked.__file__), str(recipe)], trained.environment())
    codes = [json.loads((tmp_path / f"ranks.{rank}.json").read_text()) for rank in range(2)]
    assert codes == [{"ranks": 0}] * 2, done[0].stderr[-3000:]
    assert json.loads((tmp_path / "ranks" / "preflight.json").read_text())["order"]["readers"] == 2
    monkeypatch.setattr("vfl.train.assemble._order", lambda recipe, prepared, args, readers: order_of(prepared.rows))
    run(qwen, path, tmp_path / "alone", trainer=steps | {"per_device_train_batch_size": 4}, data={"streaming": True})
    alone, ranks = (trained.weights(tmp_path / name) for name in ("alone", "ranks"))
    assert trained.difference(alone, ranks) < trained.ROUNDING


def order_of(rows):
    """For two ranks that take a row at a time."""
    return GroupedOrder(row_groups(rows), batch=1, readers=2, seed=0)
