"""Options that commands share: written once, with one text, and one way to turn them into settings.

A group of options is a function that only declares them. `takes` adds groups to a command, which gets what was given of
them as one mapping, `shared`:

    @takes(model_options, config_options)
    def command(model: ModelArgument = None, *, shared: Shared) -> None:
        settings = read_settings(LocateConfig, shared, model=model)

Options that some commands need one by one are types below: `Functions`, `Pairs` and their like.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)
Shared = dict[str, Any]
"""What was given of the shared options, by their names as settings."""

MODEL = "Folder or hub id of a model, or embedded: the small test model."
ModelArgument = Annotated[str | None, typer.Argument(help=MODEL, show_default="embedded")]
ModelOption = Annotated[str | None, typer.Option("--model", help=MODEL, show_default="embedded")]
OUT = "Where the results go."
Out = Annotated[Path | None, typer.Option("--out", help=OUT)]
SEED = "Seed of what is drawn; the same gives the same."
Seed = Annotated[int | None, typer.Option("--seed", help=SEED)]
Functions = Annotated[str | None, typer.Option("--functions", help="Names, such as counting,ocr.")]
Probes = Annotated[
    str | None, typer.Option("--probes", help="Folder of a probe suite, or generated ones: standard, micro.")
]
PAIRS = "Pairs of each function."
Pairs = Annotated[int | None, typer.Option("--pairs", help=PAIRS)]
Size = Annotated[int | None, typer.Option("--size", help="Pixels of generated images, on a side.")]
Map = Annotated[Path | None, typer.Option("--map", help="map.json of `vfl locate`, or the folder that holds it.")]
LAYERS = "Your own layers, such as 10-12,20; where a function has its own, counting=10-12,20, repeatable."
Layers = Annotated[list[str] | None, typer.Option("--layers", help=LAYERS)]
Batch = Annotated[int | None, typer.Option("--batch", help="Questions or rows that the model is given at a time.")]
DATA = "Files, folders of shards or saved datasets, in any format that is read."
DataOption = Annotated[list[Path] | None, typer.Option("--data", help=DATA)]
DataArgument = Annotated[list[Path] | None, typer.Argument(help=DATA)]
Images = Annotated[Path | None, typer.Option("--images", help="Folder of the images that the data's rows name.")]
Format = Annotated[str | None, typer.Option("--format", help="Kind of the data's rows, where it isn't clear.")]
Column = Annotated[str | None, typer.Option("--column", help="Column of the data to group rows by.")]
Match = Annotated[
    str | None, typer.Option("--match", help="How answers are compared: auto, number, yesno, text or exact.")
]
BadRows = Annotated[
    str | None, typer.Option("--on-bad-row", help="A row that can't be used: error (default) or skip, and say which.")
]
MaxNewTokens = Annotated[int | None, typer.Option("--max-new-tokens", help="Most tokens of an answer.")]
Reading = Annotated[str | None, typer.Option("--reading", help="Who sees the swap: text (default), answer or all.")]
Attention = Annotated[str | None, typer.Option("--attention", help="sdpa (default) or eager.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="auto (default), float32, float16, bfloat16 or float64.")]
Device = Annotated[str | None, typer.Option("--device", help="Such as cuda:0 or cpu.")]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit on the hub.")]
AllowOtherModel = Annotated[
    bool, typer.Option("--allow-other-model", help="Use a map of a model that this one derives from.")
]
MinPixels = Annotated[
    int | None, typer.Option("--min-pixels", help="Pictures of fewer pixels are enlarged (Qwen2-VL and its kin).")
]
MaxPixels = Annotated[
    int | None,
    typer.Option("--max-pixels", help="Pictures of more pixels are made smaller (Qwen2-VL and its kin)."),
]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")]
Config = Annotated[Path | None, typer.Option("--config", help="YAML with settings; flags override it.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, over all others: dotted keys, YAML; repeatable."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings over the recipe's, such as layers.arm=full; as --set."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another run's results.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]


def model_options(
    dtype: Dtype = None,
    device: Device = None,
    device_map: Annotated[str | None, typer.Option(help="Spread the model over devices, such as auto.")] = None,
    quantize: Annotated[str | None, typer.Option(help="4bit or 8bit.")] = None,
    attention: Attention = None,
    revision: Revision = None,
    chat_template: Annotated[Path | None, typer.Option(help="File with a chat template.")] = None,
    min_pixels: MinPixels = None,
    max_pixels: MaxPixels = None,
    boxes: Annotated[
        str | None, typer.Option(help="How the model writes boxes: pixel, unit, gemini, glm, ... (its family's way).")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """How a model is loaded."""


def config_options(config: Config = None, sets: Sets = None) -> None:
    """Settings from a file, and one by one."""


def takes(*groups: Callable[..., None]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add groups of options to a command; it gets what was given of them as `shared`."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        own = _parameters(command, without="shared")
        added = [parameter for group in groups for parameter in _parameters(group)]
        names = [parameter.name for parameter in added]

        @wraps(command)
        def call(**values: Any) -> None:
            command(shared=given_of({name: values.pop(name) for name in names}), **values)

        # Typer reads the options from here, and would follow __wrapped__ back to the command's own.
        adorned: Any = call
        del adorned.__wrapped__
        adorned.__signature__ = signature(command).replace(parameters=[*own, *added])
        adorned.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *added]}
        return call

    return add


def _parameters(function: Callable[..., None], without: str = "") -> list[Parameter]:
    declared = signature(function).parameters.values()
    return [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in declared if parameter.name != without]


def names_of(group: Callable[..., None]) -> list[str]:
    """The settings that a group of options is about."""
    return [parameter.name for parameter in _parameters(group)]


def given_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given: a flag that is off, or one without a value, is none."""
    return {name: value for name, value in values.items() if value is not None and value is not False}


def read_settings(kind: type[M], shared: Mapping[str, Any], **own: Any) -> M:
    """Settings of a command: of `--config`, under flags, under `--set`.

    Raises:
        InputError: names the wrong key and what there is.
    """
    from vfl.io.config import read_config

    file, sets, flags = split_shared(shared)
    return read_config(kind, file, flags | given_of(own), sets)


def split_shared(shared: Mapping[str, Any]) -> tuple[Path | None, list[str], dict[str, Any]]:
    """The file of `--config`, the overrides of `--set`, and the other flags."""
    flags = dict(shared)
    return flags.pop("config", None), flags.pop("sets", None) or [], flags


def by_function(layers: list[str] | None) -> dict[str, str] | None:
    """["counting=10-12,14"] -> {"counting": "10-12,14"}, as settings hold them.

    Raises:
        InputError: for one without a function.
    """
    from vfl.errors import InputError

    if not layers:
        return None
    if bad := [text for text in layers if "=" not in text]:
        raise InputError(f"--layers {bad[0]!r} is not of the form FUNCTION=10-12,14.")
    return dict(text.split("=", 1) for text in layers)
