"""Training that goes on from an adapter: the same modules and rank, and its weights to begin with.

Preferences after answers (DPO after SFT) are the common case: the reference is then the model with the adapter.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from vfl.errors import InputError
from vfl.io.layers import layer_list
from vfl.loading.adapter import CONFIG, load_adapter, read_adapter_config
from vfl.models.discover import discover
from vfl.train.adapter.towers import layer_of, tower_of


def refuse_as_model(model: str) -> None:
    """Say what to do with an adapter's folder that was given as the model.

    Raises:
        InputError: it holds an adapter and no model.
    """
    folder = Path(model)
    if not (folder / CONFIG).is_file() or (folder / "config.json").exists():
        return
    try:
        base = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        base = None
    raise InputError(
        f"model is {model}, which holds an adapter and no model. To train that adapter further, write adapter: {model} "
        f"and model: {base or 'its base model'}; to put a new one on top of it, merge it first (vfl merge) and give "
        "the merged folder as model."
    )


def continued_lora(model: PreTrainedModel, folder: Path, layers: Sequence[int], also: Collection[str]) -> Any:
    """The adapter's own `LoraConfig`, to train on.

    Args:
        model: the base model, without an adapter.
        folder: of the adapter.
        layers: that the recipe chooses.
        also: towers that it adapts besides the language model.

    Raises:
        InputError: when there is no adapter, or it is in other layers or towers than the recipe's.
    """
    config = read_adapter_config(folder)
    parts = discover(model)
    # Adapters of PEFT's own name the endings of modules.
    endings = tuple([config.target_modules] if isinstance(config.target_modules, str) else config.target_modules or ())
    names = [name for name, _ in model.named_modules() if any(name == e or name.endswith(f".{e}") for e in endings)]
    towers = tower_of(model, names, parts=parts)
    if others := sorted({tower for tower in towers.values() if tower in ("vision", "projector")} - set(also)):
        raise InputError(f"The adapter in {folder} is also in the {' and '.join(others)}: add also_adapt: {others}.")
    adapted = sorted({layer for name in names if (layer := layer_of(parts, name)) is not None})
    if adapted != sorted(layers):
        raise InputError(
            f"The adapter in {folder} is in layers {layer_list(adapted)}, the recipe chooses {layer_list(layers)}. An "
            f"adapter goes on in its own layers: write layers: {adapted}; or merge it (vfl merge) and train a new one "
            "in others."
        )
    config.inference_mode = False
    return config


def with_weights(model: PreTrainedModel, folder: Path) -> PeftModel:
    """The model with the adapter on it, every weight of the adapter trained.

    Raises:
        InputError: when the adapter does not fit the model.
    """
    return load_adapter(model, folder, trainable=True)
