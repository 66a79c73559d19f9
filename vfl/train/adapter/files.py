"""An adapter as it stands on a model and as it lies on disk: what it adapts, saving it whole, loading it strictly."""

import os
import re
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from peft.utils import get_peft_model_state_dict, load_peft_weights
from safetensors.torch import save_file
from transformers import PreTrainedModel

from vfl.errors import InputError
from vfl.io.folders import replacing_folder
from vfl.models.discover import discover
from vfl.train.adapter.towers import Tower, layer_of, tower_of
from vfl.train.export.meta_model import empty_copy

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
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


def load_adapter(base_model: PreTrainedModel, folder: Path, *, trainable: bool = False) -> PeftModel:
    """The model with a saved adapter on it; unlike PEFT alone, every tensor must find its place.

    Args:
        base_model: plain; the adapter is injected into it.
        folder: as `save_adapter` or PEFT wrote it.
        trainable: to go on training it, rather than for inference.

    Raises:
        InputError: when the folder holds no LoRA adapter, or it is not one for this model.
    """
    if any(isinstance(module, LoraLayer) for module in base_model.modules()):
        raise InputError("The base model has an adapter on it already. Give a freshly loaded one.")
    return _load(base_model, folder, read_adapter_config(folder), trainable=trainable)


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
    placed = get_peft_model_state_dict(_load(empty_copy(model), folder, config), save_embedding_layers=False)
    if len(placed) != len(stored):
        raise InputError(f"The adapter in {folder} has {len(stored)} tensors, on its base it has {len(placed)}.")
    return len(placed)


def read_adapter_config(folder: Path) -> Any:
    """The adapter's `LoraConfig`.

    Raises:
        InputError: when there is none, or it is of another method.
    """
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder} holds no adapter: expected {CONFIG} and {WEIGHTS}, as PEFT saves them.")
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder / CONFIG} cannot be read: {' '.join(str(error).split())}") from error
    if str(getattr(config.peft_type, "value", config.peft_type)) != "LORA":
        raise InputError(f"{folder} holds an adapter of type {config.peft_type}; expected LORA.")
    return config


def _load(base_model: PreTrainedModel, folder: Path, config: Any, *, trainable: bool = False) -> PeftModel:
    """The two steps of `PeftModel.from_pretrained`, which only warns of the tensors that the second one misses."""
    kind = type(base_model).__name__
    config.inference_mode = not trainable
    empty = base_model.device.type == "meta"
    try:
        loaded = PeftModel(base_model, config, low_cpu_mem_usage=empty)
        result = loaded.load_adapter(
            str(folder),
            "default",
            is_trainable=trainable,
            low_cpu_mem_usage=empty,
            key_mapping=getattr(base_model, "_checkpoint_conversion_mapping", None),
            torch_device="cpu",
        )
    except (ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"The adapter in {folder} does not fit {kind}: {' '.join(str(error).split())}") from error
    for problem, keys in (("lacks", result.missing_keys), ("has no place in the model for", result.unexpected_keys)):
        if keys:
            raise InputError(
                f"The adapter in {folder} {problem} {keys[0]} and {len(keys) - 1} others. Its names are not those of "
                f"{kind}: check the base model, and the Transformers version that the adapter was trained with."
            )
    return loaded


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
