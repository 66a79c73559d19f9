"""Small training runs for the tests of `vfl.train`: rows, recipes, and what came of them."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tiny
import torch
import warm
import yaml
from safetensors.torch import load_file

Message = dict[str, Any]
QUESTION = "How many cats?"
# AdamW whose step is smooth in the gradient. It divides by the gradient's size, so with its own epsilon (1e-8) a number
# whose gradient is nearly zero is moved by a whole learning rate in a direction that rounding, and so the processor,
# decides. With this one, rounding stays as small in the weights as it is in the gradients, and a gradient of the wrong
# size shows, which the division would hide.
STEADY = {"adam_epsilon": 0.1, "learning_rate": 1.0}
# Relative difference of weights trained with it in float32 on two ways that are equal but for the order of sums.
ROUNDING = 1e-4
# A run that can be interrupted anywhere: three steps an epoch, of which the last is short; dropout, shuffling and
# accumulation all draw or count.
SHORT_KINDS = ("image", "text", "turns", "image", "images", "image", "text", "image", "image", "image")
SHORT: dict[str, Any] = {
    "lora": {"r": 4, "lora_alpha": 4, "lora_dropout": 0.2},
    "trainer": {
        "max_steps": -1,
        "num_train_epochs": 2,
        "gradient_accumulation_steps": 2,
        "save_steps": 2,
        "save_total_limit": 2,
    },
}
TIMES = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "num_tokens"}
ANSWERS = ("3", "two cats and one dog", "red", "there are 2 small cubes left of the ball", "no", "one two three")


def turns(*texts: str, images: int = 0) -> list[Message]:
    """Questions and answers in turn, the pictures before the first question."""
    messages: list[Message] = [
        {"role": ("user", "assistant")[n % 2], "content": [{"type": "text", "text": text}]}
        for n, text in enumerate(texts)
    ]
    messages[0]["content"] = [{"type": "image"}] * images + messages[0]["content"]
    return messages


def row(folder: Path, number: int, kind: str = "image") -> dict[str, Any]:
    """A row to train on, with its pictures in `folder`; answers differ in length.

    Args:
        kind: image, text, turns (two answers), images (two of them), or pair (preference, one image).
    """
    count = {"text": 0, "images": 2}.get(kind, 1)
    names = [f"{number}-{n}.png" for n in range(count)]
    for n, name in enumerate(names):
        tiny.picture(seed=10 * number + n).save(folder / name)
    answer, other = ANSWERS[number % len(ANSWERS)], ANSWERS[(number + 1) % len(ANSWERS)]
    if kind == "pair":
        prompt = turns(QUESTION, images=count)
        return {"images": names, "prompt": prompt, "chosen": turns("", answer)[1:], "rejected": turns("", other)[1:]}
    if kind == "turns":
        return {"images": names, "messages": turns(QUESTION, answer, "And dogs?", other, images=count)}
    return {"images": names, "messages": turns(QUESTION, answer, images=count)}


def write_data(folder: Path, kinds: Sequence[str]) -> Path:
    """A data file with a row of each kind, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row(folder, n, kind)) + "\n" for n, kind in enumerate(kinds)), encoding="utf-8")
    return path


def map_of(model: Path, folder: Path) -> Path:
    """A map of the tiny model with five layers: ocr reads at layer 1, counting at 2 to 4."""
    from vfl.functionmap import FunctionEntry, FunctionMap, ModelId
    from vfl.models.identity import weights_sha256

    def entry(layers: list[int]) -> FunctionEntry:
        flat = [0.0] * 5
        facts: dict[str, Any] = {"changed": flat, "followed_source": flat, "ci_low": flat, "ci_high": flat}
        return FunctionEntry(layers=layers, peak=layers[0], distributed=False, pairs=1, kept=1, accuracy=1.0,
                             logprob_effect=None, control=None, **facts)  # fmt: skip

    identity = ModelId(id="tiny", weights_sha256=weights_sha256(model), family="Qwen2.5-VL", num_layers=5)
    path = folder / "map.json"
    FunctionMap(model=identity, functions={"ocr": entry([1]), "counting": entry([2, 3, 4])}).save(path)
    return path


def settings(model: Path, rows: Path, out: Path, **changed: Any) -> dict[str, Any]:
    """A recipe of two steps in layers 2 and 3; `changed` replaces or adds keys, within `data` and `trainer` too."""
    data = {"train": str(rows), **changed.pop("data", {})}
    trainer = {
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.01,
        "warmup_steps": 0,
        "logging_steps": 1,
        "disable_tqdm": True,
        **changed.pop("trainer", {}),
    }
    return {
        "model": str(model),
        "out": str(out),
        "data": data,
        "layers": [2, 3],
        "lora": {"r": 4, "lora_alpha": 4, "lora_dropout": 0.0},
        "dtype": "float32",
        "checkpointing": "off",
        "trainer": trainer,
        **changed,
    }


def write_recipe(path: Path, values: dict[str, Any]) -> Path:
    """A recipe's YAML file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def weights(out: Path) -> dict[str, torch.Tensor]:
    """The adapter that a run saved."""
    return load_file(out / "adapter" / "adapter_model.safetensors")


def difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """The largest relative difference of a tensor, by norms."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).norm() / first[name].norm()) for name in first)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether all tensors are equal, bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def metric_lines(out: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl says, less how long this process and its steps took."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        {key: row[key] for key in row.keys() - TIMES}
        for row in rows
        if not row.keys() & {"train_runtime", "step_seconds"}
    ]


def check_equal(out: Path, whole: Path) -> None:
    """A run of SHORT ended like one that nobody interrupted, and left nothing else."""
    assert same(weights(out), weights(whole))
    assert metric_lines(out) == metric_lines(whole)
    for name in ("settings.yaml", "preflight.json", "report.html", "adapter/README.md", "evaluation.json"):
        assert (out / name).is_file(), name
    assert [path.name for path in sorted((out / "answers").iterdir())] == [
        path.name for path in sorted((whole / "answers").iterdir())
    ]
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["checkpoint-4", "checkpoint-6"]
    assert not [path for path in out.rglob(".*") if path.name not in {".gitattributes"}], "leftovers"
    first, second = (torch.load(folder / "checkpoints/checkpoint-6/optimizer.pt") for folder in (out, whole))
    for name, state in first["state"].items():
        assert all(torch.equal(value, second["state"][name][key]) for key, value in state.items())


def losses(out: Path) -> list[float]:
    """The training losses that the last checkpoint remembers."""
    last = max((out / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    history = json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def environment(**added: str) -> dict[str, str]:
    """For processes of their own: one thread, no GPU, no hub, nobody logged in to wandb."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return {**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", **added}


def launched(arguments: Sequence[str], *, ranks: int = 2) -> "subprocess.CompletedProcess[str]":
    """`torchrun` itself, with gloo on the CPU; the ranks that it starts are forks."""
    command = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone", *arguments]
    return warm.finished(command, environment(PYTHON_EXEC=str(warm.python())))
