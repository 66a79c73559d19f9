"""Vision function layers: find the decoder layers in which a VLM recognises, counts, grounds and reads.

    import vfl

    fmap = vfl.locate("Qwen/Qwen2.5-VL-3B-Instruct", out="runs/qwen")   # function map of a model
    vlm = vfl.load("Qwen/Qwen2.5-VL-3B-Instruct")                       # the model, its spans and its facts
    result = vfl.sweep(vlm, vlm.ask("How many?", image), plans)         # any experiment on what the text reads

Names are imported on first use, so that `vfl --help` does not wait for torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "FunctionMap": "vfl.functionmap",
    "InputError": "vfl.errors",
    "Plan": "vfl.engine.plan",
    "SweepResult": "vfl.engine.sweep",
    "VLM": "vfl.models.vlm",
    "VisionStream": "vfl.engine.streams",
    "filter_data": "vfl.select.subset",
    "load": "vfl.loading",
    "locate": "vfl.localize",
    "prefill": "vfl.engine.streams",
    "score_data": "vfl.select.scoring",
    "sweep": "vfl.engine.sweep",
    "wrap": "vfl.loading",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vfl' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
