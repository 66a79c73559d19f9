"""Options that commands share: written once, with one text, and one way to turn them into settings.

A group of options is a function that only declares them. `takes` adds groups to a command, which gets what was given of
them as one mapping, `shared`:

    @takes(model_options, config_options)
    def command(model: ModelArgument = None, *, shared: Shared) -> None:
        settings = read_settings(LocateConfig, shared, model=model)

Options that some commands need one by one are types below: `Functions`, `Pairs` and their like.
"""

import logging
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer
from pydantic import BaseModel
from typer.models import ArgumentInfo

from vfl.commands.help import GENERAL
from vfl.errors import InputError
from vfl.io.config import WrongSettings, read_config

M = TypeVar("M", bound=BaseModel)
QUIET = {
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore",
}
"""What silences libraries when they are imported."""
Shared = dict[str, Any]
"""What was given of the shared options, by their names as settings."""

KINDS = (
    "auto", "messages", "prompt_completion", "preference", "llava", "sharegpt", "alpaca", "query_response",
    "question_answer", "texts", "verl",
)  # fmt: skip
PAIRS_GROUP, DATA_GROUP, MODEL_GROUP, RESULTS_GROUP = "Pairs", "Data", "Model", "Results"


def choice(*names: str, values: tuple[str, ...], help: str, default: str | None = None, group: str = "Options") -> Any:
    """An option that takes one of some words: shown in the help, completed by the shell, checked with the settings.

    Not by typer's own choices, which refuse one option and hide what is wrong with others.
    """
    return typer.Option(
        *names,
        metavar=f"<{'|'.join(values)}>",
        autocompletion=lambda: list(values),
        help=help,
        show_default=default or False,
        rich_help_panel=group,
    )


MODEL = "Model folder or hub id; embedded is the small test model."
ModelArgument = Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL, show_default="embedded")]
ModelOption = Annotated[
    str | None, typer.Option("--model", help=MODEL, show_default="embedded", rich_help_panel=MODEL_GROUP)
]
OUT = "Where to write the results."
Out = Annotated[Path | None, typer.Option("--out", help=OUT, rich_help_panel=RESULTS_GROUP)]
SEED = "Seed of everything that is drawn at random."
Seed = Annotated[int | None, typer.Option("--seed", help=SEED, show_default="0")]
SeedOfOthers = Annotated[int | None, typer.Option("--seed", help=SEED, show_default="1")]
"""Evaluations draw other pairs than `vfl locate`."""
Functions = Annotated[
    str | None, typer.Option("--functions", metavar="NAMES", help="Functions by name, such as counting,ocr.")
]
Probes = Annotated[
    str | None,
    typer.Option(
        "--probes",
        metavar="DIR",
        help="Folder of a probe suite, or standard or micro to generate one.",
        rich_help_panel=PAIRS_GROUP,
    ),
]
PAIRS = "Number of pairs per function."
Pairs = Annotated[int | None, typer.Option("--pairs", help=PAIRS, show_default="100", rich_help_panel=PAIRS_GROUP)]
Group = Annotated[
    int | None,
    typer.Option(
        "--group",
        help="Generate groups of so many images of one scene, and all ordered pairs of each.",
        show_default="pairs of their own",
        rich_help_panel=PAIRS_GROUP,
    ),
]
Size = Annotated[
    int | None, typer.Option("--size", help="Side length of generated images, in pixels.", rich_help_panel=PAIRS_GROUP)
]
Map = Annotated[Path | None, typer.Option("--map", help="map.json from `vfl locate`, or the folder that holds it.")]
LAYERS = "Layers of your own, such as 10-12,20; for one function counting=10-12,20 (repeatable)."
Layers = Annotated[list[str] | None, typer.Option("--layers", metavar="LAYERS", help=LAYERS)]
Batch = Annotated[
    int | None,
    typer.Option("--batch-size", help="Questions or rows per batch.", show_default="16"),
]
DATA = "Files, folders of shards or saved datasets, in any supported format."
DataOption = Annotated[list[Path] | None, typer.Option("--data", metavar="PATH", help=DATA, rich_help_panel=DATA_GROUP)]
DataArgument = Annotated[list[Path] | None, typer.Argument(metavar="DATA", help=DATA)]
Images = Annotated[
    Path | None,
    typer.Option("--images", help="Folder of the images that the rows name.", rich_help_panel=DATA_GROUP),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="KIND",
        autocompletion=lambda: list(KINDS),
        help=f"Format of the rows, where it can't be detected: {', '.join(KINDS)}.",
        show_default="auto",
        rich_help_panel=DATA_GROUP,
    ),
]
Column = Annotated[
    str | None,
    typer.Option("--column", help="Column of the data by which rows are grouped.", rich_help_panel=DATA_GROUP),
]
Match = Annotated[
    str | None,
    choice(
        "--match",
        values=("auto", "number", "yesno", "text", "letter", "exact"),
        help="How answers are compared.",
        default="auto",
        group=DATA_GROUP,
    ),
]
BadRows = Annotated[
    str | None,
    choice(
        "--on-bad-row",
        values=("error", "skip"),
        help="What to do with an unusable row: stop, or skip and report it.",
        default="error",
        group=DATA_GROUP,
    ),
]
MAX_NEW_TOKENS = "Maximum length of an answer, in tokens."
MaxNewTokens = Annotated[
    int | None,
    typer.Option("--max-new-tokens", help=MAX_NEW_TOKENS, show_default="by the right answer's kind and length"),
]
Reading = Annotated[
    str | None,
    choice("--reading", values=("text", "answer", "all"), help="Which tokens see the swapped image.", default="text"),
]
Attention = Annotated[
    str | None,
    choice(
        "--attn-implementation",
        values=("sdpa", "eager"),
        help="Attention implementation.",
        default="sdpa",
        group=MODEL_GROUP,
    ),
]
Dtype = Annotated[
    str | None,
    choice(
        "--dtype",
        values=("auto", "float32", "float16", "bfloat16", "float64"),
        help="Precision of the weights.",
        default="auto",
        group=MODEL_GROUP,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="Device, such as cuda:0 or cpu.",
        show_default="the GPU, if there is one",
        rich_help_panel=MODEL_GROUP,
    ),
]
Revision = Annotated[
    str | None, typer.Option("--revision", help="Branch, tag or commit on the hub.", rich_help_panel=MODEL_GROUP)
]
AllowOtherModel = Annotated[
    bool, typer.Option("--allow-other-model", help="Accept the map of the model that this one was fine-tuned from.")
]
MinPixels = Annotated[
    int | None,
    typer.Option(
        "--min-pixels",
        help="Enlarge pictures of fewer pixels (Qwen2-VL and related families).",
        rich_help_panel=MODEL_GROUP,
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        help="Shrink pictures of more pixels (Qwen2-VL and related families).",
        rich_help_panel=MODEL_GROUP,
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run code that ships with the model.", rich_help_panel=MODEL_GROUP),
]
Config = Annotated[
    Path | None, typer.Option("--config", help="YAML file with settings; flags override it.", rich_help_panel=GENERAL)
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override any setting by its dotted key; the value is YAML (repeatable).",
        rich_help_panel=GENERAL,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="Print only results and errors: no progress, no warnings.", rich_help_panel=GENERAL),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Override the recipe's settings, such as layers.arm=full (same as --set)."
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the results of an earlier run.", rich_help_panel=RESULTS_GROUP)
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.", rich_help_panel=RESULTS_GROUP)]


def model_options(
    dtype: Dtype = None,
    device: Device = None,
    device_map: Annotated[
        str | None,
        typer.Option(help="Spread the model over several devices, such as auto.", rich_help_panel=MODEL_GROUP),
    ] = None,
    quantize: Annotated[
        str | None,
        choice(
            "--quantize",
            values=("4bit", "8bit"),
            help="Load the weights in fewer bits (extra vfl[quantized]).",
            group=MODEL_GROUP,
        ),
    ] = None,
    attn_implementation: Attention = None,
    revision: Revision = None,
    chat_template: Annotated[
        Path | None,
        typer.Option(help="File with a chat template to use instead of the model's.", rich_help_panel=MODEL_GROUP),
    ] = None,
    min_pixels: MinPixels = None,
    max_pixels: MaxPixels = None,
    boxes: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="How the model writes boxes: pixel, unit, gemini, glm, ...",
            show_default="as its family does",
            rich_help_panel=MODEL_GROUP,
        ),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """How a model is loaded."""


def config_options(config: Config = None, sets: Sets = None) -> None:
    """Settings from a file, and one by one."""


def takes(
    *groups: Callable[..., None], required: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add groups of options, and --quiet, to a command; it gets what was given of the groups as `shared`.

    Args:
        groups: functions that declare options.
        required: parameters that must be given, here or in a file of settings: the help marks them. That one is missing
            is found with the settings, together with whatever else is wrong with them.
    """

    def add(command: Callable[..., None]) -> Callable[..., None]:
        own = _parameters(command, without="shared")
        added = [parameter for group in groups for parameter in _parameters(group)]
        names = [parameter.name for parameter in added]
        quiet = Parameter("quiet", Parameter.KEYWORD_ONLY, default=False, annotation=Quiet)

        @wraps(command)
        def call(*, quiet: bool = False, **values: Any) -> None:
            if quiet:
                be_quiet()
            # what --set replaced is not a flag's any more
            given = given_of(values).keys() - {text.partition("=")[0] for text in values.get("sets") or ()}
            try:
                command(shared=given_of({name: values.pop(name) for name in names}), **values)
            except WrongSettings as error:
                raise InputError(error.written(names_on_command_line([*own, *added]), given)) from error

        # Typer reads the options from here, and would follow __wrapped__ back to the command's own.
        adorned: Any = call
        del adorned.__wrapped__
        adorned.__signature__ = signature(command).replace(parameters=[*own, *added, quiet])
        adorned.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *added, quiet]}
        adorned.required = frozenset(required)
        return call

    return add


def be_quiet() -> None:
    """No progress, no warnings: of this process, of the libraries it is going to import, and of processes it starts."""
    os.environ.update(QUIET)
    logging.getLogger().setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


def names_on_command_line(parameters: Iterable[Parameter]) -> dict[str, str]:
    """How a person writes settings there: out -> "--out", or "DATA" for an argument."""
    names = {}
    for parameter in parameters:
        declared = get_args(parameter.annotation)[1]
        if isinstance(declared, ArgumentInfo):
            names[parameter.name] = str(declared.metavar or parameter.name.upper())
        else:
            names[parameter.name] = next(iter(declared.param_decls or ()), f"--{parameter.name.replace('_', '-')}")
    return names


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
    if not layers:
        return None
    if bad := [text for text in layers if "=" not in text]:
        raise InputError(f"--layers {bad[0]!r} is not of the form FUNCTION=10-12,14.")
    return dict(text.split("=", 1) for text in layers)
