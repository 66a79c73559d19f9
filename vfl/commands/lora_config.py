"""`vfl lora-config MAP --functions counting --model M`: the LoRA configuration alone, for one's own trainer.

vfl lora-config runs/qwen2.5-vl-7b --functions counting --expand 2 --model Qwen/Qwen2.5-VL-7B-Instruct --out lora
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from vfl.commands.options import (
    LAYERS,
    AllowOtherModel,
    Functions,
    ModelOption,
    Out,
    Revision,
    Seed,
    Shared,
    TrustRemoteCode,
    config_options,
    given_of,
    split_shared,
    takes,
)

if TYPE_CHECKING:
    from vfl.train.lora_files import LoraFilesConfig


@takes(config_options)
def command(
    map: Annotated[Path | None, typer.Argument(help="map.json of `vfl locate`, or the folder that holds it.")] = None,
    model: ModelOption = None,
    functions: Functions = None,
    expand: Annotated[int | None, typer.Option(help="Layers to add on each side of the functions' layers (0).")] = None,
    arm: Annotated[
        str | None, typer.Option(help="function (default), full, reversed (all other layers) or random.")
    ] = None,
    seed: Seed = None,
    layers: Annotated[str | None, typer.Option("--layers", help=LAYERS)] = None,
    preset: Annotated[str | None, typer.Option(help="Layers that a paper states, by name.")] = None,
    match_rank: Annotated[
        bool, typer.Option("--match-rank", help="Scale the rank to full LoRA's number of trainable parameters.")
    ] = False,
    lora: Annotated[
        list[str] | None, typer.Option(help="A field of PEFT's LoraConfig, such as r=32 or use_dora=true; repeatable.")
    ] = None,
    also_adapt: Annotated[str | None, typer.Option(help="vision, projector, or both with a comma between.")] = None,
    out: Out = None,
    tool: Annotated[
        str | None, typer.Option(help="peft, llamafactory, swift, axolotl, unsloth or all (default).")
    ] = None,
    allow_other_model: AllowOtherModel = False,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    *,
    shared: Shared,
) -> None:
    """Write the LoRA configuration of a model's function layers, for PEFT and for other trainers.

    --layers takes a list such as 10-17,20-23, or full. adapter_config.json and the tools' files go into the folder
    --out; without it they are shown.
    """
    import_peft()
    from vfl.errors import InputError
    from vfl.io.layers import layer_list
    from vfl.loading.beds import bed_folders
    from vfl.train.adapter.lora import build_lora
    from vfl.train.adapter.lora_rank import count_parameters
    from vfl.train.export.meta_model import identify_model, meta_model
    from vfl.train.export.snippets import TOOLS, snippet
    from vfl.train.layers.choice import chosen_layers

    settings = _settings(
        shared,
        top={
            "model": model,
            "match_rank": match_rank,
            "also_adapt": also_adapt,
            "out": out,
            "tool": tool,
            "revision": revision,
            "trust_remote_code": trust_remote_code,
        },
        layers=_written(map, functions, expand, arm, seed, layers, preset, allow_other_model),
        lora=dict(field_value(text) for text in lora or []),
    )
    choice, also, folder = settings.layers, settings.also_adapt, settings.out
    if choice.by_data:
        raise InputError(
            f"The layers of the rule {choice.rule} depend on the training rows: `vfl train` decides them, and "
            "`vfl layers` shows them. Name them here with --layers."
        )
    empty = meta_model(settings.model, revision=settings.revision, trust_remote_code=settings.trust_remote_code)
    identity = identify_model(empty, hashed=choice.map is not None)
    chosen = chosen_layers(choice, identity)
    config = build_lora(empty, chosen, settings.lora, also=also, match_rank=settings.match_rank)
    config.base_model_name_or_path = empty.name_or_path
    config.revision = settings.revision

    console = Console()
    total = sum(parameter.numel() for parameter in empty.parameters())
    count = count_parameters(empty, config)
    _say(
        console,
        f"{len(chosen)} of {identity.num_layers} layers: {layer_list(chosen)}\n"
        f"{len(config.target_modules or ())} modules, r {config.r}, alpha {config.lora_alpha:g}: {count:,} trainable "
        f"parameters ({count / total:.2%} of {total:,}), {2 * count:,} bytes in bfloat16, {4 * count:,} in float32",
    )
    written = {}
    # As a person would write it: a test bed is a folder to other tools.
    base = empty.name_or_path if settings.model in bed_folders() else settings.model
    for name in TOOLS if settings.tool == "all" else (settings.tool,):
        try:
            written[name] = snippet(name, config, base, also)
        except InputError as error:
            if settings.tool != "all":
                raise
            _say(console, f"Left out: {error}")
    if folder is None:
        for text in written.values():
            _say(console, f"\n{text}")
        return
    for path in write_config(folder, config, written):
        _say(console, str(path))


def write_config(out: Path, config: Any, snippets: dict[str, str]) -> list[Path]:
    """adapter_config.json and a file for each tool; the paths."""
    import json

    from vfl.io.json_files import write_text
    from vfl.train.export.snippets import file_name

    values = config.to_dict() | {"target_modules": sorted(config.target_modules)}
    plain = json.dumps(values, indent=2, sort_keys=True, default=sorted)  # the rest that is no JSON are sets
    texts = {"adapter_config.json": plain + "\n"} | {file_name(name): text for name, text in snippets.items()}
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]


def field_value(text: str) -> tuple[str, Any]:
    """ "use_dora=true" -> ("use_dora", True); the value is YAML."""
    import yaml

    from vfl.errors import InputError

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"--lora {text!r} is not of the form FIELD=VALUE, such as r=32.")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--lora {text!r}: {value!r} is not YAML ({' '.join(str(error).split())}).") from error


def import_peft() -> None:
    """Say what to install, rather than that a module is missing.

    Raises:
        InputError: without the extra.
    """
    from vfl.errors import InputError

    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise InputError(f'This command needs PEFT ({error}): pip install "vfl[train]"') from error


def _settings(
    shared: Mapping[str, Any], *, top: Mapping[str, Any], layers: Mapping[str, Any], lora: Mapping[str, Any]
) -> "LoraFilesConfig":
    """The settings of `--config`, under flags, which go into its `layers` and `lora` too, under `--set`."""
    from vfl.errors import InputError
    from vfl.io.config import merged, set_dotted, validated
    from vfl.train.lora_files import LoraFilesConfig

    file, sets, _ = split_shared(shared)
    values = merged(file, given_of(top))
    for key, flags in (("layers", layers), ("lora", lora)):
        inner = values.get(key)
        if not flags and inner is not None:
            continue
        if not isinstance(inner, dict | None):
            raise InputError(
                f"{file} gives {key} as {inner!r}, and the flags give {', '.join(flags)}: give {key} as keys there, or "
                "leave these flags out."
            )
        values[key] = {**(inner or {}), **flags}
    for override in sets:
        set_dotted(values, override)
    return validated(LoraFilesConfig, values, source=str(file) if file else "settings")


def _written(
    map: Path | None,
    functions: str | None,
    expand: int | None,
    arm: str | None,
    seed: int | None,
    layers: str | None,
    preset: str | None,
    allow_other_model: bool,
) -> dict[str, Any]:
    """The options as a recipe would write them under `layers`."""
    if layers == "full":
        arm, layers = "full", None
    named = {"map": map, "preset": preset, "list": layers, "functions": functions, "expand": expand, "arm": arm}
    return given_of({**named, "seed": seed, "allow_other_model": allow_other_model})


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
