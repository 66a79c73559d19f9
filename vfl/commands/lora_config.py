"""`vfl lora-config MAP --functions counting --model M`: the LoRA configuration alone, for one's own trainer.

vfl lora-config runs/qwen2.5-vl-7b --functions counting --expand 2 --model Qwen/Qwen2.5-VL-7B-Instruct --out lora
"""

from pathlib import Path
from typing import Annotated, Any

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
    TrustRemoteCode,
    given_of,
)


def command(
    map: Annotated[Path | None, typer.Argument(help="map.json of `vfl locate`, or the folder that holds it.")] = None,
    model: ModelOption = None,
    functions: Functions = None,
    expand: Annotated[int, typer.Option(help="Layers to add on each side of the functions' layers.")] = 0,
    arm: Annotated[str, typer.Option(help="function, full, reversed (all other layers) or random.")] = "function",
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
    tool: Annotated[str, typer.Option(help="peft, llamafactory, swift, axolotl, unsloth or all.")] = "all",
    allow_other_model: AllowOtherModel = False,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write the LoRA configuration of a model's function layers, for PEFT and for other trainers.

    --layers takes a list such as 10-17,20-23, or full. adapter_config.json and the tools' files go into the folder
    --out; without it they are shown.
    """
    import_peft()
    from vfl.errors import InputError
    from vfl.io.fields import split
    from vfl.io.layers import layer_list
    from vfl.loading.load import EMBEDDED_ID
    from vfl.train.adapter.lora import build_lora
    from vfl.train.adapter.lora_rank import count_parameters
    from vfl.train.export.meta_model import identify_model, meta_model
    from vfl.train.export.snippets import TOOLS, snippet
    from vfl.train.layers.choice import chosen_layers, read_choice

    if tool != "all" and tool not in TOOLS:
        raise InputError(f"--tool {tool!r} is unknown; expected {', '.join(TOOLS)} or all.")
    choice = read_choice(_written(map, functions, expand, arm, seed or 0, layers, preset, allow_other_model))
    empty = meta_model(model or EMBEDDED_ID, revision=revision, trust_remote_code=trust_remote_code)
    identity = identify_model(empty, hashed=choice.map is not None)
    chosen = chosen_layers(choice, identity)
    also = tuple(split(also_adapt or ""))
    config = build_lora(empty, chosen, dict(field_value(text) for text in lora or []), also=also, match_rank=match_rank)
    config.base_model_name_or_path = empty.name_or_path
    config.revision = revision

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
    for name in TOOLS if tool == "all" else (tool,):
        try:
            written[name] = snippet(name, config, model or empty.name_or_path, also)
        except InputError as error:
            if tool != "all":
                raise
            _say(console, f"Left out: {error}")
    if out is None:
        for text in written.values():
            _say(console, f"\n{text}")
        return
    for path in write_config(out, config, written):
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


def _written(
    map: Path | None,
    functions: str | None,
    expand: int,
    arm: str,
    seed: int,
    layers: str | None,
    preset: str | None,
    allow_other_model: bool,
) -> Any:
    """The options as a recipe would write them under `layers`."""
    if layers == "full":
        arm, layers = "full", None
    named = {"map": map, "preset": preset, "list": layers, "functions": functions}
    return given_of(named) | {"expand": expand, "arm": arm, "seed": seed, "allow_other_model": allow_other_model}


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
