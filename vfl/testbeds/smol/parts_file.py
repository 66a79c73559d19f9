"""The file of trained parts: tensors by the model's names, as float16, and in its header what they were trained by."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vfl.errors import InputError


def save_parts(path: Path, parts: Iterable[tuple[str, torch.Tensor]], about: Mapping[str, Any]) -> None:
    """The file appears whole or not at all."""
    halves = {name: parameter.detach().to("cpu", torch.float16).contiguous() for name, parameter in parts}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    save_file(halves, part, metadata={"smol": json.dumps(about)})
    part.replace(path)


def read_parts(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What the parts were trained by, and the parts as float32.

    Raises:
        InputError: the file is absent or holds no trained parts.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file; expected the trained parts, as python -m vfl.testbeds.smol.train writes")
    with safe_open(path, framework="pt") as file:
        about = (file.metadata() or {}).get("smol")
        if about is None:
            raise InputError(f"{path} holds no trained parts of the small model; train it anew, or name another file")
        return json.loads(about), {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 no dict
