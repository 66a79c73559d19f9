"""What lmms-eval finds by the entry point `lmms_eval.models`: read at its every start, so nothing heavy is imported."""

from typing import Any

NAME = "vfl"
MODEL = "vfl.lmms_eval.model.PlannedModel"


def manifest() -> Any:
    """The model's name and where its class is, which lmms-eval imports when the model is asked for."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=NAME, simple_class_path=MODEL)
