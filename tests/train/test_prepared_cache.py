"""Rows are prepared once for all that train on them, and what is taken for prepared is whole and still right."""

import io
import json
import os
import shutil
import signal
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny

import vfl
from vfl.io.cache import cache_home
from vfl.models.conversation import encoder_of
from vfl.train.data_config import DataConfig
from vfl.train.rows import set_on_disk
from vfl.train.rows.prepare import prepare
from vfl.train.rows.set_on_disk import CHECKED, KIND, ROWS
from vfl.train.rows.table import conversation

KINDS = ("image", "text", "turns", "images")


@pytest.fixture(scope="module")
def encoder(qwen):
    return encoder_of(vfl.load(qwen, device="cpu"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty one."""
    monkeypatch.setenv("VFL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / KIND


@pytest.fixture
def data(data_of, tmp_path):
    """Rows with their pictures, to change."""
    return shutil.copytree(data_of(*KINDS).parent, tmp_path / "data") / "train.jsonl"


def prepared(encoder, path, method="sft", **config):
    return prepare(DataConfig(train=(path,), **config), encoder, method=method, progress=False)


def entries(cache):
    return sorted(path.name for path in cache.iterdir() if not path.name.startswith("."))


def made_at(cache):
    return {name: (cache / name / ROWS).stat().st_mtime_ns for name in entries(cache)}


def same(first, second):
    return (first.text, first.image, first.facts, list(first.rows)) == (
        second.text,
        second.image,
        second.facts,
        list(second.rows),
    )


def test_what_lies_in_the_cache_is_what_would_be_made_by_any_number_of_processes(encoder, data, cache, monkeypatch):
    first = prepared(encoder, data, workers=0)
    before = made_at(cache)
    assert len(before) == 1
    assert same(prepared(encoder, data, workers=2), first)
    assert same(prepared(encoder, data, max_length=100_000, on_bad_row="skip"), first)
    assert made_at(cache) == before, "how many processes there are and what a run leaves out is no matter"
    monkeypatch.setenv("VFL_CACHE", str(cache.parent.with_name("another")))
    for workers in (1, 2):
        shutil.rmtree(cache_home(), ignore_errors=True)
        assert same(prepared(encoder, data, workers=workers), first)


def test_what_rows_depend_on_has_an_entry_of_its_own(encoder, data, cache, data_of, tmp_path, monkeypatch):
    prepared(encoder, data)
    others = [
        lambda: prepared(encoder, data, images=data.parent),
        lambda: prepared(encoder, data, format="messages"),
        lambda: prepared(encoder, data, image_column="images"),
        lambda: prepared(encoder, data, allow_remote=True),
        lambda: prepared(encoder, shutil.copytree(data.parent, tmp_path / "moved") / data.name),
        lambda: prepared(encoder, data_of("pair"), method="dpo"),
        lambda: prepared(encoder, _changed(data)),
    ]
    for number, other in enumerate(others, start=1):
        other()
        assert len(entries(cache)) == number + 1
    processor = encoder.processor
    before = encoder.fingerprint()
    monkeypatch.setattr(processor.image_processor, "size", {"shortest_edge": 256, "longest_edge": 4096})
    prepared(encoder, data)
    assert len(entries(cache)) == number + 2
    smaller = encoder.fingerprint()
    monkeypatch.setattr(encoder, "template", processor.chat_template.replace("assistant", "helper"))
    assert len({before, smaller, encoder.fingerprint()}) == 3


def _changed(data):
    data.write_text(data.read_text().replace("How many cats?", "How many dogs?"))
    return data


def test_an_encoder_is_known_by_its_content(encoder, tiny_folder, tmp_path):
    """Not by its folder's name, nor by what it has encoded."""
    moved = shutil.copytree(tiny_folder("qwen2_5_vl"), tmp_path / "moved")
    before = encoder.fingerprint()
    encoder.processor(text=["a", "a b c"], padding=True)
    assert encoder.fingerprint() == before == encoder_of(vfl.load(moved, device="cpu")).fingerprint()
    tokenizer = moved / "tokenizer.json"
    content = json.loads(tokenizer.read_text())
    content["model"]["merges"].pop()
    tokenizer.write_text(json.dumps(content))
    assert encoder_of(vfl.load(moved, device="cpu")).fingerprint() != before


def test_images_that_change_are_looked_at_again(encoder, data, cache):
    picture = data.parent / "0-0.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])
    assert prepared(encoder, data, on_bad_row="skip").facts.bad == 1
    picture.write_bytes(whole)
    assert prepared(encoder, data).facts.bad == 0
    tiny.picture(seed=99).resize((96, 96)).save(picture)
    assert prepared(encoder, data).image[0] > 0
    picture.unlink()
    assert prepared(encoder, data, on_bad_row="skip").facts.bad == 1
    assert prepared(encoder, data, on_bad_row="skip").facts.bad == 1
    picture.write_bytes(whole)
    assert prepared(encoder, data).facts.bad == 0
    assert len(entries(cache)) == 1


@pytest.mark.parametrize("moment", ["reading", "checking", "renaming"])
def test_a_killed_preparation_leaves_nothing_that_is_taken_for_whole(encoder, data, cache, monkeypatch, moment):
    def die(*arguments, **options):
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        if moment == "reading":
            read = set_on_disk.read
            set_on_disk.read = lambda *a, **o: (die() if n == 2 else row for n, row in enumerate(read(*a, **o)))
        elif moment == "checking":
            set_on_disk._check_rows = die
        else:
            os.rename = die
        prepared(encoder, data, workers=0)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert [path.suffix for path in cache.iterdir() if path.is_dir()] == [".tmp"]
    assert len(prepared(encoder, data).rows) == 4, "its lock is taken over"
    (name,) = entries(cache)
    assert [path.name for path in cache.iterdir()] == [name], "and what it left is removed"


def test_a_damaged_entry_is_made_again(encoder, data, cache):
    rows = list(prepared(encoder, data).rows)
    (name,) = entries(cache)
    for file in (ROWS, CHECKED):
        content = (cache / name / file).read_bytes()
        (cache / name / file).unlink()  # the rows above are still open
        (cache / name / file).write_bytes(content[:50])
        assert list(prepared(encoder, data).rows) == rows


def test_of_two_that_want_the_same_one_waits_for_the_other(encoder, data, cache, monkeypatch):
    made = []
    check = set_on_disk._check

    def slowly(*arguments):
        time.sleep(0.5)
        made.append(1)
        return check(*arguments)

    monkeypatch.setattr(set_on_disk, "_check", slowly)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: prepared(encoder, data), range(2))
    assert same(first, second)
    assert len(made) == 1


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_images_of_an_archive_stay_where_they_are_unless_it_is_packed(
    encoder, data, cache, tmp_path, mode, monkeypatch
):
    archive = tmp_path / "rows.tar"
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    with tarfile.open(archive, mode) as tar:
        for number, row in enumerate(rows):
            names = row.pop("images")
            files = {f"{number}.json": json.dumps(row).encode()}
            files |= {f"{number}.{n}.png": (data.parent / name).read_bytes() for n, name in enumerate(names)}
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    monkeypatch.chdir(tmp_path)
    packed = prepared(encoder, Path("rows.tar"))
    monkeypatch.chdir("/")
    plain = prepared(encoder, data)
    assert (packed.text, packed.image) == (plain.text, plain.image)
    for one, other in zip(packed.rows, plain.rows, strict=True):
        assert _shown(one) == _shown(other)
    held = [image["data"] is not None for row in packed.rows for image in row["images"]]
    assert held == [mode == "w:gz"] * 4


def _shown(row):
    parts = [part for message in conversation(row) for part in message["content"]]
    return [part["image"].tobytes() if part["type"] == "image" else part["text"] for part in parts]


def test_a_cache_that_cannot_be_written_is_said_in_one_line(encoder, data, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VFL_CACHE", str(tmp_path / "file"))
    with pytest.raises(vfl.InputError, match="set VFL_CACHE"):
        prepared(encoder, data)
