"""A folder of runs as they are left, and links that lead out of it."""

import json

import pytest

from vfl.functionmap import FunctionEntry, FunctionMap, ModelId

HOSTILE = "<script>document.title='owned'</script>"


def group(accuracy, n=20):
    return {"accuracy": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.1, "n": n, "forgetting": 0.0}


def training_run(folder, rate, losses):
    folder.mkdir(parents=True)
    (folder / "settings.yaml").write_text(f"model: embedded\nmethod: sft\ntrainer: {{learning_rate: {rate}}}\n")
    rows = [{"step": 0, "kind": "evaluation", "groups": {"ocr": group(0.2)}}]
    rows += [{"step": step, "kind": "train", "loss": loss} for step, loss in enumerate(losses, 1)]
    rows += [{"step": len(losses), "kind": "evaluation", "groups": {"ocr": group(0.8), "counting": group(0.5)}}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "report.html").write_text(f"<title>report of {rate}</title>")
    return folder


def small_map(folder, peak):
    flat = [0.0] * 4
    facts = {"changed": flat, "followed_source": flat, "ci_low": flat, "ci_high": flat, "accuracy": 1.0}
    none = {"logprob_effect": None, "control": None, "distributed": False}
    functions = {
        name: FunctionEntry(layers=[at], peak=at, pairs=1, kept=1, **facts, **none)
        for name, at in {"ocr": peak, "counting": 2}.items()
    }
    folder.mkdir(parents=True)
    FunctionMap(model=ModelId(id=folder.name, family="f", num_layers=4), functions=functions).save(folder / "map.json")


@pytest.fixture
def root(tmp_path):
    """Two training runs, two maps, a run with a hostile name; links and hidden files; a run beside the folder."""
    root = tmp_path / "root"
    training_run(root / "a", 0.001, [3.0, 2.0, 1.0])
    training_run(root / "deep" / "b", 0.01, [3.0, 1.0])
    training_run(root / HOSTILE.replace("/", "|"), 0.1, [3.0])
    small_map(root / "maps" / "one", 1)
    small_map(root / "maps" / "two", 3)
    outside = training_run(tmp_path / "outside", 0.5, [9.0])
    (root / "linked").symlink_to(outside)
    (root / "report.html").symlink_to(outside / "report.html")
    (root / "circle").symlink_to(root / "circle")
    half = root / "half"
    half.mkdir()
    (half / "metrics.jsonl").symlink_to(outside / "metrics.jsonl")
    (half / "settings.yaml").write_text("model: embedded\n")
    hidden = root / ".secret"
    hidden.mkdir()
    (hidden / "report.html").write_text("hidden")
    (root / "to-hidden.html").symlink_to(hidden / "report.html")
    (root / "within.html").symlink_to(root / "a" / "report.html")
    (root / "weights.bin").write_bytes(b"\0")
    return root
