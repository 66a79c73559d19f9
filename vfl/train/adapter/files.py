"""An adapter as it stands on a model and as it is saved: what it adapts, saving it whole, checking what was saved."""

import os
import re
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from peft.utils import get_peft_model_state_dict, load_peft_weights
from safetensors.torch import save_file
from transformers import PreTrainedModel

from vfl.errors import InputError
from vfl.io.folders import replacing_folder
from vfl.loading.adapter import WEIGHTS, placed, read_adapter_config
from vfl.models.discover import discover
from vfl.train.adapter.towers import Tower, layer_of, tower_of
from vfl.train.export.meta_model import empty_copy

_WRAPPED = re.compile(r"\.(base_layer|lora_\w+|modules_to_save|original_module|token_adapter)(\.|$).*")


@dataclass(frozen=True)
class AdaptedTower:
    """What is trained in one tower.

    Attributes:
        tower: "language" (the decoder's layers), "vision", "projector", or "other".
        modules: full names, in the model's order.
        parameters: trainable ones.
        num_bytes: what these take in their own dtype, without gradients and optimizer states.
        layers: decoder layers they are in; empty for other towers.
    """

    tower: Tower
    modules: tuple[str, ...]
    parameters: int
    num_bytes: int
    layers: tuple[int, ...]


def adapted_modules(peft_model: PeftModel) -> list[AdaptedTower]:
    """Everything trainable, tower by tower; a tower without any is left out."""
    base = peft_model.get_base_model()
    counts: dict[str, tuple[int, int]] = {}
    for name, parameter in base.named_parameters():
        if parameter.requires_grad:
            module = _WRAPPED.sub("", name) if _WRAPPED.search(name) else name.rpartition(".")[0]
            size = int(getattr(parameter, "ds_numel", parameter.numel()))  # ZeRO-3 leaves empty tensors behind
            parameters, num_bytes = counts.get(module, (0, 0))
            counts[module] = (parameters + size, num_bytes + size * parameter.element_size())
    parts = discover(base)
    towers = tower_of(base, list(counts), parts=parts)
    rows = []
    for tower in dict.fromkeys(towers.values()):
        modules = tuple(name for name in counts if towers[name] == tower)
        layers = {layer for name in modules if (layer := layer_of(parts, name)) is not None}
        parameters, num_bytes = (sum(counts[name][i] for name in modules) for i in (0, 1))
        rows.append(AdaptedTower(tower, modules, parameters, num_bytes, tuple(sorted(layers))))
    return rows


def save_adapter(peft_model: PeftModel, folder: Path, state_dict: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write the adapter as PEFT does, with every adapted module under its full name, whole or not at all.

    PEFT shortens long lists of names to endings that are unique in this one model; another model class, or a serving
    engine, may find more modules under these.

    Args:
        peft_model: the trained model; under ZeRO-3 with a gathered `state_dict`, and on one process.
        folder: replaced if it exists.
        state_dict: the model's whole state, where its own parameters are spread over processes.

    Raises:
        InputError: when a tensor to save is empty or not finite.
    """
    # The embeddings are never trained here; PEFT's guess whether they were asks the hub.
    tensors = get_peft_model_state_dict(
        peft_model, state_dict=None if state_dict is None else dict(state_dict), save_embedding_layers=False
    )
    _check_tensors(tensors, f"The adapter for {folder}")
    config = copy(peft_model.peft_config["default"])
    names = [name for name, module in _lora_layers(peft_model) if not isinstance(module, ParamWrapper)]
    config.target_modules = sorted(names) or None
    config.inference_mode = True
    with replacing_folder(folder) as temporary:
        config.save_pretrained(str(temporary))
        own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        save_file(own, temporary / WEIGHTS, metadata={"format": "pt"})
        readable(temporary)


def readable(folder: Path) -> None:
    """Give an adapter's files the rights that the user's umask asks for; safetensors keeps them from the group."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o666 & ~umask)


def verify_adapter(model: PreTrainedModel, folder: Path, trained: Mapping[str, torch.Tensor] | None = None) -> int:
    """Load a saved adapter onto an empty copy of its base and compare; the number of its tensors.

    Args:
        model: the base, or what training made of it: only its class and config are used.
        folder: the saved adapter.
        trained: what `peft.get_peft_model_state_dict` gave of the trained model; compared value by value.

    Raises:
        InputError: names what is missing, unexpected, empty or different.
    """
    config = read_adapter_config(folder)
    stored = load_peft_weights(str(folder), device="cpu")
    _check_tensors(stored, f"The adapter in {folder}")
    if trained is not None:
        _compare({name: tensor.cpu() for name, tensor in trained.items()}, stored, folder)
    config.init_lora_weights = False  # PiSSA and its kin would decompose weights that are not here
    there = get_peft_model_state_dict(placed(empty_copy(model), folder, config), save_embedding_layers=False)
    if len(there) != len(stored):
        raise InputError(f"The adapter in {folder} has {len(stored)} tensors, on its base it has {len(there)}.")
    return len(there)


def _lora_layers(peft_model: PeftModel) -> list[tuple[str, LoraLayer]]:
    base = peft_model.get_base_model()
    return [(name, module) for name, module in base.named_modules() if isinstance(module, LoraLayer)]


def _check_tensors(tensors: Mapping[str, torch.Tensor], what: str) -> None:
    if not tensors:
        raise InputError(f"{what} holds no tensor: no module was adapted.")
    if empty := [name for name, tensor in tensors.items() if tensor.numel() == 0]:
        raise InputError(
            f"{what} has {len(empty)} empty tensors of {len(tensors)}, such as {empty[0]}. Under ZeRO-3 the parameters "
            "are spread over the processes: gather them (zero3_save_16bit_model: true) before saving."
        )
    if wrong := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise InputError(f"{what} has values that are not finite, in {wrong[0]} and {len(wrong) - 1} other tensors.")


def _compare(expected: Mapping[str, torch.Tensor], loaded: Mapping[str, torch.Tensor], folder: Path) -> None:
    for difference, names in (("lacks", set(expected) - set(loaded)), ("has besides", set(loaded) - set(expected))):
        if names:
            raise InputError(f"The adapter in {folder} {difference} {len(names)} tensors, such as {min(names)}.")
    for name, tensor in expected.items():
        if not torch.equal(tensor.to(loaded[name].dtype), loaded[name].cpu()):
            raise InputError(f"The adapter in {folder} has other values in {name} than were to be saved.")
