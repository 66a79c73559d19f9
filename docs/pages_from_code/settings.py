"""The settings reference: every field of the pydantic models that commands and YAML files are checked by."""

import inspect
import types
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pages_from_code.commands import help_of_options
from pages_from_code.sources import cell
from pydantic import BaseModel
from pydantic.fields import FieldInfo

# Title, what it is the settings of, and the model; models inside these are followed.
SETTINGS = (
    ("Locating", "`vfl locate`", "vfl.locate.config:LocateConfig"),
    ("Measuring", "`vfl measure`", "vfl.measure.config:MeasureConfig"),
    ("Evaluating", "`vfl evaluate`", "vfl.evaluate.config:EvaluateConfig"),
    ("A model of lmms-eval", "`lmms-eval --model vfl --model_args`", "vfl.lmms_eval.config:LmmsEvalConfig"),
    ("Training", "`vfl train`, `vfl arms` and the launcher: a recipe", "vfl.train.recipe:Recipe"),
    ("Making preference rows", "`vfl negatives`", "vfl.negatives.config:NegativesConfig"),
    ("Scoring", "`vfl select score`", "vfl.select.settings:ScoreConfig"),
    ("Filtering", "`vfl select filter`", "vfl.select.subset.write:FilterConfig"),
    ("Scoring and filtering in one recipe", "`vfl select run`", "vfl.select.recipe:SelectRecipe"),
    ("Estimating", "`vfl estimate`", "vfl.estimate.config:EstimateConfig"),
    ("Ranking layers", "`vfl layers`", "vfl.commands.settings:LayersConfig"),
    ("A LoRA configuration", "`vfl lora-config`", "vfl.train.lora_files:LoraFilesConfig"),
    ("Merging", "`vfl merge`", "vfl.train.adapter.merge:MergeConfig"),
    ("Swapping", "`vfl swap`", "vfl.commands.settings:SwapConfig"),
    ("Skipping", "`vfl skip`", "vfl.commands.settings:SkipConfig"),
    ("Making pairs", "`vfl probes make`", "vfl.probes.config:SuiteConfig"),
    ("A paper's figure", "`vfl measure --paper`", "vfl.measure.paper:Paper"),
    ("Training the small model", "`python -m vfl.testbeds.smol.train`", "vfl.testbeds.smol.config:Recipe"),
    ("Training the embedded model", "`python -m vfl.testbeds.micro.train`", "vfl.testbeds.micro.config:Recipe"),
)


def page() -> str:
    """The whole page."""
    parts = [
        "# Settings",
        "Every key that a YAML file may hold, by command. In a nested key the dots are levels, `NAME` is a name of "
        "yours and `N` an entry of a list. An unknown key is an error that says which is meant. Settings come from "
        "`--config FILE`, then from flags, then from `--set "
        "key=value`; a list may be written `a,b` or `[a, b]`, layers `10-12,20`. Each run saves its own as "
        "`settings.yaml`, which `--config` runs again.",
    ]
    for title, use, where in SETTINGS:
        helps = help_of_options(use.split("`")[1])
        parts.append(f"## {title}\n\n{use} (`{where.replace(':', '.')}`)")
        rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
        for key, field in fields(resolve(where)):
            meaning = field.description or helps.get(key.rpartition(".")[2], "")
            shown = "**required**" if field.is_required() else f"`{cell(default(field))}`"
            rows.append(f"| `{key}` | {cell(kind(field))} | {shown} | {cell(meaning)} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def resolve(where: str) -> type[BaseModel]:
    """ "module:Class" as the class."""
    module, _, name = where.partition(":")
    model: type[BaseModel] = getattr(import_module(module), name)
    return model


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted keys and fields of a model and of the models inside it."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key, field
        for inner, several in inner_models(field.annotation):
            yield from fields(inner, f"{key}{several}.")


def inner_models(annotation: Any, several: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    """Models in an annotation, and what stands before their keys where many are held, by name or in a list."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation, several
    held = {dict: ".NAME", list: ".N", tuple: ".N"}.get(get_origin(annotation), "")
    for inner in get_args(annotation):
        if not isinstance(inner, str):
            yield from inner_models(inner, several or held)


def kind(field: FieldInfo) -> str:
    """What may be written, with its bounds."""
    bounds = [
        f"{sign} {getattr(bound, name)}"
        for bound in field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if hasattr(bound, name)
    ]
    return ", ".join([spelled(field.annotation), *bounds])


def spelled(annotation: Any) -> str:
    """A type in words for a person."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " · ".join(f"`{value}`" for value in inner)
    if origin is typing.Annotated:
        return spelled(inner[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(spelled(part) for part in inner if part is not type(None))
    if origin in (tuple, list):
        return f"list of {spelled(inner[0])}"
    if origin is dict:
        return f"{spelled(inner[0])} → {spelled(inner[1])}"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return "keys below"
    words = {str: "text", int: "whole number", float: "number", bool: "true, false", Path: "path", Any: "anything"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def default(field: FieldInfo) -> str:
    """The default as YAML writes it, more or less."""
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(str, value))}]"
    return str(value) if value != "" else '""'
