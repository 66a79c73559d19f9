"""`vfl locate`: probe a model, find its function layers, write the map and its report.

vfl locate Qwen/Qwen2.5-VL-3B-Instruct --out runs/qwen2.5-vl-3b
"""

import json
import logging
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from vfl.atomic import replacing
from vfl.errors import InputError
from vfl.functionmap import FunctionMap, ModelId
from vfl.loading import EMBEDDED, load, resolve
from vfl.locate.ask import Asker
from vfl.locate.choose import end_blocks, window_blocks
from vfl.locate.config import MAIN_FUNCTIONS, LocateConfig
from vfl.locate.curves import Block
from vfl.locate.entries import build_entries
from vfl.locate.pairs import sweep_pair
from vfl.locate.records import pending, read_parts, unite, write_part
from vfl.locate.stages import next_blocks
from vfl.locate.truth import read_truth
from vfl.models.identity import versions, weights_sha256
from vfl.models.vlm import VLM
from vfl.probes.make import make
from vfl.probes.pair import PROBES_FILE, Pair, read_suite, suite_sha256
from vfl.probes.style import STYLES
from vfl.report.write import write_report

logger = logging.getLogger(__name__)

PARTS = "parts"
EMBEDDED_ID = "embedded"
SETTINGS = "settings.json"
# These say where and how to run, not what is measured: a run may be resumed with others.
_NOT_MEASURED = {"out", "device", "device_map", "part_pairs", "choice", "layers"}


def locate(
    model: str | Path | VLM | None = None,
    *,
    out: str | Path,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
    **settings: Any,
) -> FunctionMap:
    """Find the function layers of a model by visual token swapping (arXiv 2509.24791).

    Args:
        model: folder, hub id, a loaded VLM, or None for the embedded test model.
        out: folder for map.json, report.html, curves.png and pairs.parquet.
        overwrite: replace the results of another run in `out`.
        resume: go on with an interrupted run in `out`.
        progress: show progress bars.
        settings: fields of `LocateConfig`, such as probes, functions, pairs, seed, mode, reading, choice.

    Returns:
        The map, as saved.

    Raises:
        InputError: for settings, probes or models that can't be used, or when no pair was answered correctly.

    Example:
        >>> fmap = vfl.locate("Qwen/Qwen2.5-VL-3B-Instruct", out="runs/qwen", pairs=50)  # doctest: +SKIP
    """
    loaded = model if isinstance(model, VLM) else None
    name = loaded.model_id if loaded else None if model is None else str(model)
    config = LocateConfig(model=name, out=Path(out), **settings)
    return run(config, vlm=loaded, overwrite=overwrite, resume=resume, progress=progress)


def run(
    config: LocateConfig,
    *,
    vlm: VLM | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
) -> FunctionMap:
    """Run a validated configuration; see `locate`."""
    out = config.out
    _claim(out, config, overwrite=overwrite, resume=resume)
    pairs, suite = _suite(config)
    vlm = vlm or load_from(config)
    records = _sweep_all(Asker(vlm), pairs, config, out / PARTS, progress=progress)
    entries = build_entries(records, vlm.num_layers, config.choice, config.layers or None)
    fmap = FunctionMap(
        model=identify(vlm),
        functions=entries,
        settings=_settings(config),
        probes_sha256=suite_sha256(suite),
        versions=versions(),
    )
    unite(out / PARTS, out / "pairs.parquet")
    embedded = fmap.model.id == EMBEDDED_ID
    write_report(out, fmap, records, pairs, planted=read_truth(EMBEDDED) if embedded else None)
    fmap.save(out / "map.json")  # last: a folder with a map is a finished run
    return fmap


def load_from(config: Any) -> VLM:
    """The model that a configuration names."""
    template = None
    if config.chat_template is not None:
        if not config.chat_template.is_file():
            raise InputError(f"No chat template at {config.chat_template}. Give a file with a Jinja template.")
        template = config.chat_template.read_text(encoding="utf-8")
    return load(
        config.model,
        dtype=config.dtype,
        device=config.device,
        device_map=config.device_map,
        quantize=config.quantize,
        attention=config.attention,
        revision=config.revision,
        chat_template=template,
        trust_remote_code=config.trust_remote_code,
    )


def identify(vlm: VLM) -> ModelId:
    """What a map says of its model."""
    embedded = Path(vlm.model_id) == EMBEDDED
    folder = Path(vlm.model_id)
    return ModelId(
        id=EMBEDDED_ID if embedded else vlm.model_id,
        revision=vlm.revision,
        weights_sha256=weights_sha256(folder) if folder.is_dir() else None,
        family=vlm.family.name,
        num_layers=vlm.num_layers,
    )


def _claim(out: Path, config: LocateConfig, *, overwrite: bool, resume: bool) -> None:
    """Make `out` this run's folder, or say whose it is."""
    finished, started = (out / "map.json").exists(), (out / SETTINGS).exists()
    if resume and finished:
        raise InputError(f"{out} holds a finished run; there is nothing to resume. Use --overwrite to run it again.")
    if (finished or started) and not (overwrite or resume):
        what = "a function map" if finished else "an interrupted run"
        hint = "" if finished else "--resume to go on with it, "
        raise InputError(f"{out} holds {what}. Use {hint}--overwrite to replace it, or another --out folder.")
    settings = json.loads(json.dumps(_settings(config)))
    if resume and started:
        before = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
        other = sorted(key for key in {*before, *settings} - _NOT_MEASURED if before.get(key) != settings.get(key))
        if other:
            listed = ", ".join(f"{key}: {before.get(key)!r} then, {settings.get(key)!r} now" for key in other)
            raise InputError(
                f"The interrupted run in {out} had other settings ({listed}). Use the same, or --overwrite."
            )
        return
    if overwrite:
        for part in (out / PARTS).glob("*.parquet"):
            part.unlink()
        for name in ("map.json", "report.html", "curves.png", "pairs.parquet", SETTINGS):
            (out / name).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / SETTINGS) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _settings(config: LocateConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude={"out"})


def _suite(config: LocateConfig) -> tuple[list[Pair], Path]:
    """The pairs to ask and the folder they lie in; generated ones are written into `out` like a user's own."""
    probes = config.probes
    if probes is not None and probes not in STYLES:
        folder = Path(probes)
        return _chosen(read_suite(folder), config.functions, folder), folder
    if probes is None:
        probes = "micro" if resolve(config.model)[0] == str(EMBEDDED) else "standard"
    style = STYLES[probes]
    if config.size is not None:
        style = style.resized(config.size)
    functions = config.functions or MAIN_FUNCTIONS
    folder = config.out / "probes" / f"{probes}-{style.size}-{config.pairs}-{config.seed}-{'-'.join(functions)}"
    if not (folder / PROBES_FILE).exists():
        make(folder, functions, pairs=config.pairs, seed=config.seed, style=style)
    return _chosen(read_suite(folder), config.functions, folder), folder


def _chosen(pairs: list[Pair], functions: Sequence[str] | None, folder: Path) -> list[Pair]:
    present = list(dict.fromkeys(pair.function for pair in pairs))
    unknown = [name for name in functions or () if name not in present]
    if unknown:
        raise InputError(f"The suite {folder} has no pairs for {', '.join(unknown)}; it has {', '.join(present)}.")
    return [pair for pair in pairs if functions is None or pair.function in functions]


def _sweep_all(asker: Asker, pairs: list[Pair], config: LocateConfig, parts: Path, *, progress: bool) -> pa.Table:
    """Sweep every function in stages until nothing is left to ask; parts are saved as they finish."""
    num_layers = asker.vlm.num_layers
    for function in dict.fromkeys(pair.function for pair in pairs):
        of_function = [pair for pair in pairs if pair.function == function]
        for number in count():
            records = read_parts(parts)
            blocks = _stage(records, function, num_layers, config, number)
            if not blocks:
                break
            singles = all(first == last for first, last in blocks)
            asked = of_function if singles else _kept(records, of_function)
            wanted = set(pending(records, function, [pair.id for pair in asked], blocks))
            todo = [pair for pair in asked if pair.id in wanted]
            title = f"{function}: {_describe(blocks, num_layers)}"
            _sweep_stage(asker, todo, blocks, config, parts, title=title, progress=progress)
    return read_parts(parts)


def _sweep_stage(
    asker: Asker,
    pairs: Sequence[Pair],
    blocks: Sequence[Block],
    config: LocateConfig,
    parts: Path,
    *,
    title: str,
    progress: bool,
) -> None:
    rows: list[dict[str, Any]] = []
    for number, pair in enumerate(tqdm(pairs, title, unit="pair", disable=not progress), 1):
        rows += sweep_pair(asker, pair, blocks, reading=config.reading, max_new_tokens=config.max_new_tokens)
        if number % config.part_pairs == 0 or number == len(pairs):
            write_part(parts, rows)
            rows = []


def _stage(records: pa.Table, function: str, num_layers: int, config: LocateConfig, number: int) -> Sequence[Block]:
    """The blocks of a function's stage `number`; empty after the last."""
    if config.mode == "auto":
        return next_blocks(records, function, num_layers, config.choice)
    wider = {"single": [], "window": [window_blocks(num_layers)], "suffix": [end_blocks(num_layers)]}[config.mode]
    stages = [[(layer, layer) for layer in range(num_layers)], *wider]
    return stages[number] if number < len(stages) else []


def _kept(records: pa.Table, pairs: list[Pair]) -> list[Pair]:
    kept = records.filter(pc.field("kept"))
    ids = set(zip(kept["function"].to_pylist(), kept["pair_id"].to_pylist(), strict=True))
    return [pair for pair in pairs if (pair.function, pair.id) in ids]


def _describe(blocks: Sequence[Block], num_layers: int) -> str:
    if all(first == last for first, last in blocks):
        return "single layers"
    if any(first == 0 and last > 2 for first, last in blocks) and any(last == num_layers - 1 for _, last in blocks):
        return "prefixes and suffixes"
    return "windows" if len(blocks) > num_layers else "blocks"
