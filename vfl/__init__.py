"""Vision function layers: find the decoder layers in which a VLM recognises, counts, grounds and reads.

    import vfl

    fmap = vfl.locate("Qwen/Qwen2.5-VL-3B-Instruct", out="runs/qwen")   # function map of a model
    vlm = vfl.load("Qwen/Qwen2.5-VL-3B-Instruct")                       # the model, its spans and its facts
    result = vfl.sweep(vlm, vlm.ask("How many?", image), plans)         # any experiment on what the text reads

Names are imported on first use, so that `vfl --help` does not wait for torch. `vfl.locate`, `vfl.measure`,
`vfl.evaluate`, `vfl.negatives` and `vfl.train` are packages that can be called.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vfl.engine.image_cache import ImageCache as ImageCache
    from vfl.engine.image_cache import prefill as prefill
    from vfl.engine.plan import Plan as Plan
    from vfl.engine.sweep import SweepResult as SweepResult
    from vfl.engine.sweep import sweep as sweep
    from vfl.errors import InputError as InputError
    from vfl.evaluate.run import evaluate as evaluate
    from vfl.functionmap import FunctionMap as FunctionMap
    from vfl.loading.load import load as load
    from vfl.loading.load import wrap as wrap
    from vfl.locate.run import locate as locate
    from vfl.measure.run import measure as measure
    from vfl.models.vlm import VLM as VLM
    from vfl.negatives.run import negatives as negatives
    from vfl.select.score.result import Scores as Scores
    from vfl.select.score.run import score_data as _score_data
    from vfl.select.subset.result import Subset as Subset
    from vfl.select.subset.write import filter_data as _filter_data
    from vfl.train.run import train as train

    score = _score_data
    filter = _filter_data

__version__ = "0.2.0.dev0"

_HOMES = {
    "FunctionMap": "vfl.functionmap",
    "ImageCache": "vfl.engine.image_cache",
    "InputError": "vfl.errors",
    "Plan": "vfl.engine.plan",
    "Scores": "vfl.select.score.result",
    "Subset": "vfl.select.subset.result",
    "SweepResult": "vfl.engine.sweep",
    "VLM": "vfl.models.vlm",
    "filter": "vfl.select.subset.write:filter_data",
    "load": "vfl.loading.load",
    "prefill": "vfl.engine.image_cache",
    "score": "vfl.select.score.run:score_data",
    "sweep": "vfl.engine.sweep",
    "wrap": "vfl.loading.load",
}
_CALLABLE = ("evaluate", "locate", "measure", "negatives", "train")

__all__ = [*_HOMES, *_CALLABLE, "__version__"]


if not TYPE_CHECKING:  # to a checker, a module with `__getattr__` has every name, and a misspelt one would pass

    def __getattr__(name: str) -> Any:
        if name in _CALLABLE:
            return import_module(f"vfl.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module 'vfl' has no attribute {name!r}")
        module, _, attribute = _HOMES[name].partition(":")
        value = getattr(import_module(module), attribute or name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
