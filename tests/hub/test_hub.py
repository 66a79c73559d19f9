"""Results go to a hub and come back, by the calls that the real one takes, against one of this machine's own."""

import json
import logging
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from hub_stub import TOKEN, HubStub
from safetensors.torch import save_file
from typer.testing import CliRunner

import vfl
from vfl.commands.main import app
from vfl.data.sample import BadRow, Sample
from vfl.errors import InputError
from vfl.functionmap import FunctionMap
from vfl.hub.push import push
from vfl.io.cache import cache_home
from vfl.io.config import read_config
from vfl.io.hub import fetched, read_address
from vfl.select.settings import ScoreConfig
from vfl.train.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]
MAP = ROOT / "recipes" / "micro" / "map.json"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with HubStub() as stub:
        monkeypatch.setenv("HF_ENDPOINT", stub.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("VFL_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        yield stub


@pytest.fixture
def subset(tmp_path):
    """As `vfl select filter` writes one, with places of a machine in what tells of it."""
    folder = tmp_path / "subset"
    (folder / "data").mkdir(parents=True)
    rows = [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": str(n)}]} for n in range(3)
    ]
    (folder / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "ids.txt").write_text("a\nb\nc\n")
    place = "/home/somebody/pictures"
    manifest = {
        "kind": "vfl subset",
        "files": ["data/rows.jsonl"],
        "rows": 3,
        "counts": {"class": {"ocr": {"rows": 9, "chosen_rows": 3}}},
        **dict.fromkeys(("data", "images", "reading", "settings", "scores"), place),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "settings.yaml").write_text(f"scores: {place}\n")
    return folder


@pytest.fixture
def run(tmp_path):
    """As a training run leaves it, adapter, report and what is nobody else's business."""
    folder = tmp_path / "run"
    (folder / "adapter").mkdir(parents=True)
    (folder / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    save_file({"w": torch.ones(2)}, folder / "adapter" / "adapter_model.safetensors")
    (folder / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "adapter" / "README.md").write_text("---\ntags: [vfl]\n---\n\n# Mine\n")
    (folder / "adapter" / "optimizer.pt").write_bytes(b"code")
    (folder / "checkpoints" / "checkpoint-1" / "trainer_state.json").write_text("{}")
    (folder / "report.html").write_text("<html></html>")
    (folder / "settings.yaml").write_text("model: /home/somebody\n")
    return folder


def test_a_map_goes_up_and_comes_back(hub):
    pushed = push(MAP, "me/map")
    assert (pushed.address, pushed.files) == ("hf://datasets/me/map", 2)
    assert hub.commits == [("datasets/me/map", "Function map by vfl push")]
    card = hub.repos["datasets/me/map"]["README.md"].decode()
    assert "| counting | 5 | 100% of 60 |" in card
    assert 'from_hub("me/map")' in card
    assert FunctionMap.from_hub("me/map") == FunctionMap.load(MAP)
    assert FunctionMap.load("hf://datasets/me/map@main/map.json") == FunctionMap.load(MAP)


def test_rows_come_back_as_data_without_places_of_the_machine(hub, subset):
    push(subset, "me/subset")
    files = hub.repos["datasets/me/subset"]
    assert sorted(files) == ["README.md", "data/rows.jsonl", "ids.txt", "manifest.json"]
    assert not any(b"somebody" in content for content in files.values())
    assert b"| ocr | 9 | 3 |" in files["README.md"]
    assert b"**The images are not here**" in files["README.md"]
    rows = list(vfl.data.read("hf://datasets/me/subset"))
    assert [row.messages[-1]["content"][0]["text"] for row in rows if isinstance(row, Sample)] == ["0", "1", "2"]


def test_a_run_gives_its_adapter(hub, run):
    pushed = push(run, "me/adapter", private=True, message="First")
    files = dict(hub.repos["me/adapter"])
    assert sorted(files) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert (pushed.what, hub.private, hub.commits[-1][1]) == ("adapter", {"me/adapter"}, "First")
    folder = fetched(pushed.address)
    for name, content in files.items():
        assert (folder / name).read_bytes() == content
        assert not (folder / name).is_symlink(), "names in data are looked up inside their folder"
    push(run, "me/adapter", private=True, report=True)
    assert hub.repos["me/adapter"]["report.html"] == (run / "report.html").read_bytes()


def test_a_public_repository_is_not_taken_for_a_private_one(hub, run):
    push(run, "me/adapter")
    with pytest.raises(InputError, match="me/adapter is there, and public: nothing was pushed"):
        push(run, "me/adapter", private=True)
    assert len(hub.commits) == 1


def test_a_second_push_leaves_nothing_of_the_first(hub, subset):
    push(subset, "me/subset")
    (subset / "data" / "rows.jsonl").rename(subset / "data" / "new.jsonl")
    manifest = json.loads((subset / "manifest.json").read_text())
    (subset / "manifest.json").write_text(json.dumps(manifest | {"files": ["data/new.jsonl"], "rows": 1}))
    hub.repos["datasets/me/subset"]["mine.txt"] = b"of somebody"
    push(subset, "me/subset")
    files = hub.repos["datasets/me/subset"]
    assert sorted(files) == ["README.md", "data/new.jsonl", "ids.txt", "manifest.json", "mine.txt"]
    assert b"A subset of 1 rows" in files["README.md"]
    assert b"data/new.jsonl" in files["README.md"]
    folder = fetched("hf://datasets/me/subset")
    push(folder, "me/again")
    assert b"**The images are not here**" in hub.repos["datasets/me/again"]["README.md"]


@pytest.mark.parametrize("name", ["/etc/hostname", "../secret.jsonl", "data/link.jsonl", "data/none.jsonl"])
def test_nothing_outside_the_folder_is_pushed_or_read(hub, subset, name):
    (subset.parent / "secret.jsonl").write_text('{"messages": []}\n')
    (subset / "data" / "link.jsonl").symlink_to(subset.parent / "secret.jsonl")
    manifest = json.loads((subset / "manifest.json").read_text())
    (subset / "manifest.json").write_text(json.dumps(manifest | {"files": [name]}))
    with pytest.raises(InputError, match=r"names .* among its files, and there is none of that name inside"):
        push(subset, "me/subset")
    assert not hub.commits
    with pytest.raises(InputError, match=r"which lies outside of it|does not exist"):
        list(vfl.data.read(subset))


def test_a_fetched_manifest_names_no_folder_of_this_machine(hub, subset):
    push(subset, "me/subset")
    told = json.loads(hub.repos["datasets/me/subset"]["manifest.json"])
    hub.repos["datasets/me/subset"]["manifest.json"] = json.dumps(told | {"images": "/etc"}).encode()
    row = {"image": "hostname", "question": "Which?", "answer": "This one"}
    hub.repos["datasets/me/subset"]["data/rows.jsonl"] = json.dumps(row).encode()
    (read,) = vfl.data.read("hf://datasets/me/subset")
    assert isinstance(read, BadRow)


def test_code_is_not_fetched(hub):
    hub.repos["me/model"] = {"config.json": b"{}", "pytorch_model.bin": b"code", "modeling.py": b"code"}
    assert [path.name for path in fetched("hf://me/model").iterdir()] == ["config.json"]
    hub.repos["me/code"] = {"modeling.py": b"code"}
    with pytest.raises(InputError, match=r"there is no file that may be read"):
        fetched("hf://me/code")
    with pytest.raises(InputError, match=r"there is no other\.json"):
        fetched("hf://me/model/other.json")


def test_settings_take_addresses(hub, subset, tmp_path):
    push(subset, "me/subset")
    push(MAP, "me/map")
    recipe = read_recipe(
        {"out": str(tmp_path / "run"), "data": {"train": "hf://datasets/me/subset"}},
        ["layers={functions: ocr, map: hf://datasets/me/map}"],
    )
    assert recipe.layers.map is not None
    assert FunctionMap.load(recipe.layers.map) == FunctionMap.load(MAP)
    (source,) = recipe.data.sets
    assert (source.path[0] / "ids.txt").read_text() == "a\nb\nc\n"

    flags = {
        "data": [Path("hf://datasets/me/subset")],
        "model": "m",
        "map": Path("hf://datasets/me/map"),
        "out": Path("o"),
    }
    config = read_config(ScoreConfig, None, flags)
    assert FunctionMap.load(config.map) == FunctionMap.load(MAP)


def test_a_card_that_is_there_stays(hub, subset):
    push(subset, "me/subset")
    hub.repos["datasets/me/subset"]["README.md"] = b"written by hand"
    push(subset, "me/subset")
    assert hub.repos["datasets/me/subset"]["README.md"] == b"written by hand"


def test_what_was_fetched_is_there_without_a_network(hub, subset, monkeypatch, caplog):
    push(subset, "me/set")
    addresses = ("hf://datasets/me/set@main", "hf://datasets/me/set", "hf://datasets/me/set/ids.txt")
    first = [fetched(address) for address in addresses]
    assert first[0] == first[1] == first[2].parent, "fetched once"
    before = len(hub.calls)
    assert fetched(addresses[1]) == first[1]
    assert len(hub.calls) == before + 1, "one question: which commit"
    hub.repos["datasets/me/set"]["ids.txt"] = b"d\n"
    new = hub.sha("datasets/me/set")
    newer = fetched(f"hf://datasets/me/set@{new}")
    assert newer != first[1]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING):
        assert [fetched(address) for address in addresses[:2]] == first[:2], "as each was seen last"
    assert "is taken as it was fetched before" in caplog.text
    assert fetched(f"hf://datasets/me/set@{new}") == newer
    with pytest.raises(InputError, match="was never fetched, and the hub can't be reached"):
        fetched("hf://datasets/me/other")
    with pytest.raises(InputError, match="Nothing was pushed to me/map: the hub can't be reached"):
        push(MAP, "me/map")


def test_names_of_files_are_no_patterns_and_share_no_entry(hub):
    hub.repos["datasets/me/set"] = {"a/b[1].json": b"1", "a--b[1].json": b"2", "a/b1.json": b"3"}
    assert fetched("hf://datasets/me/set/a--b[1].json").read_text() == "2"
    path = fetched("hf://datasets/me/set/a/b[1].json")
    assert path.read_text() == "1"
    assert [each.name for each in path.parent.iterdir()] == ["b[1].json"]


def test_only_places_to_read_are_fetched(hub, tmp_path):
    values = {"out": str(tmp_path), "data": {"train": "rows.json"}, "layers": [1]}
    with pytest.raises(InputError, match="results are written here"):
        read_recipe(values | {"out": "hf://datasets/me/m"})
    with pytest.raises(InputError, match="write ORG/NAME"):
        read_recipe(values | {"model": "hf://me/m"})
    said = read_recipe({**values, "data": {"train": "rows.json", "system_prompt": "hf:/ begins this"}})
    assert said.data.system_prompt == "hf:/ begins this"
    assert not hub.calls


def test_the_cache_keeps_what_came_from_the_hub_unless_asked(hub):
    push(MAP, "me/map")
    path = fetched("hf://datasets/me/map")
    assert CliRunner().invoke(app, ["cache", "--clear"]).exit_code == 0
    assert path.is_dir()
    assert "hub: 1 of" in CliRunner().invoke(app, ["cache", "--clear", "--hub"]).output
    assert not path.exists()


def test_a_new_commit_is_fetched_beside_the_old(hub, subset):
    push(subset, "me/subset")
    first = fetched("hf://datasets/me/subset")
    hub.repos["datasets/me/subset"]["ids.txt"] = b"d\n"
    second = fetched("hf://datasets/me/subset")
    assert first != second
    assert ((first / "ids.txt").read_text(), (second / "ids.txt").read_text()) == ("a\nb\nc\n", "d\n")
    assert len(list((cache_home() / "hub").iterdir())) >= 2


@pytest.mark.parametrize("text", ["hf://", "hf://datasets/one", "hf://me", "hf://datasets/me/map/../../x"])
def test_what_is_no_address(text):
    with pytest.raises(InputError, match="is no address on the hub: write hf://datasets/ORG/NAME"):
        read_address(text)


def test_an_address_says_what_it_says():
    for text in ("hf://me/model", "hf://datasets/me/map@v1/map.json", "hf://me/model@refs%2Fpr%2F1"):
        assert str(read_address(text)) == str(read_address(Path(text))) == text


def test_what_the_hub_refuses(hub, monkeypatch, tmp_path):
    with pytest.raises(InputError, match="is not on the hub, or not for everyone"):
        fetched("hf://datasets/me/none")
    push(MAP, "me/map")
    with pytest.raises(InputError, match="there is no revision 'v9'"):
        fetched("hf://datasets/me/map@v9")
    with pytest.raises(InputError, match="has no name that the hub knows"):
        fetched("hf://me/na--me")
    with pytest.raises(InputError, match="is no name that the hub takes"):
        push(MAP, "me/na--me")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(InputError, match=r"Nothing was pushed to me/map: .* Log in with `hf auth login`"):
        push(MAP, "me/map")
    with pytest.raises(InputError, match="is no name of a repository"):
        push(MAP, "map")
    with pytest.raises(InputError, match="holds nothing to push"):
        push(tmp_path, "me/nothing")


def test_the_command(hub):
    done = CliRunner().invoke(app, ["push", str(MAP), "me/map"])
    assert done.exit_code == 0, done.output
    assert "Commands find it as hf://datasets/me/map" in done.output
