"""`vfl locate`: probe a model, find its function layers, write the map and its report.

vfl locate Qwen/Qwen2.5-VL-3B-Instruct --out runs/qwen2.5-vl-3b
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vfl.errors import InputError
from vfl.functionmap import FunctionMap
from vfl.io.layers import layer_list
from vfl.io.run_folder import RunFolder
from vfl.io.versions import versions
from vfl.loading.beds import EMBEDDED, EMBEDDED_ID, probe_style
from vfl.loading.config import configured, identify, load_from
from vfl.loading.load import resolve
from vfl.locate.config import LocateConfig
from vfl.locate.map_entries import build_entries, kept_counts
from vfl.locate.records import unite
from vfl.locate.recovery import read_truth
from vfl.locate.report.write import write_report
from vfl.locate.sweeping import sweep_all
from vfl.models.vlm import VLM
from vfl.probes.asking import Asker
from vfl.probes.functions import PAPER_FUNCTIONS
from vfl.probes.make import drawn_pairs, make
from vfl.probes.pair import PROBES_FILE, Pair, read_suite, suite_sha256
from vfl.probes.style import STYLES, Style

logger = logging.getLogger(__name__)

PARTS, MAP = "parts", "map.json"
# These say where and how to run, not what is measured: a run may be resumed with others.
_NOT_MEASURED = {"out", "device", "device_map", "part_pairs", "choice", "layers"}
TEST_BED = "The embedded model is a test bed with planted function layers; it says nothing about large models."


def locate(
    model: str | Path | VLM = EMBEDDED_ID,
    *,
    out: str | Path,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
    **settings: Any,
) -> FunctionMap:
    """Find the function layers of a model by visual token swapping (arXiv 2509.24791).

    Args:
        model: folder, hub id, a loaded VLM, or "embedded", the test model.
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
    config, loaded = configured(LocateConfig, model, {"out": out, **settings})
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
    folder = RunFolder(config.out, MAP, holds="a function map")
    with folder.held(overwrite=overwrite, resume=resume):
        if resume and not overwrite:
            folder.refuse_other_settings(settings_of(config), may_change=_NOT_MEASURED)
        return _run(config, folder, vlm, overwrite=overwrite, progress=progress)


def settings_of(config: LocateConfig) -> dict[str, Any]:
    """What is saved of a configuration: everything but where its results go."""
    return config.model_dump(mode="json", exclude={"out"}, exclude_none=True)


def _run(config: LocateConfig, folder: RunFolder, vlm: VLM | None, *, overwrite: bool, progress: bool) -> FunctionMap:
    out = config.out
    # What a user can get wrong is found before anything is written, and before the slow steps.
    own = config.probes is not None and config.probes not in STYLES
    suite = Path(config.probes or "") if own else None
    pairs = _chosen(read_suite(suite), config.functions, suite) if suite else []
    if suite is None:
        _check_generated(config)
    vlm = vlm or load_from(config)
    _check_layers(config, {pair.function for pair in pairs} or set(config.functions or PAPER_FUNCTIONS), vlm)
    if overwrite:
        folder.clear([f"{PARTS}/*.parquet", "report.html", "curves.png", "pairs.parquet"])
    if not folder.started:
        folder.save(settings_of(config))
    if suite is None:
        suite = _generated(config)
        pairs = read_suite(suite)
    records = sweep_all(Asker(vlm), pairs, config, out / PARTS, progress=progress)
    answered, unanswered = _answered(records)
    built = build_entries(answered, vlm.num_layers, config.choice, config.layers or None)
    entries = {name: built[name] for name in dict.fromkeys(pair.function for pair in pairs) if name in built}
    model = identify(vlm)
    fmap = FunctionMap(
        model=model,
        functions=entries,
        settings=settings_of(config) | {"unanswered": unanswered},
        probes_sha256=suite_sha256(suite),
        versions=versions(),
    )
    unite(out / PARTS, out / "pairs.parquet")
    embedded = model.id == EMBEDDED_ID
    notes = [TEST_BED] if embedded else []
    notes += [f"No pair of {name} was answered correctly on both images: it has no layers here." for name in unanswered]
    truth = read_truth(EMBEDDED) if embedded else None
    write_report(out, fmap, answered, pairs, planted=truth, note=" ".join(notes))
    fmap.save(out / MAP)  # last: a folder with a map is a finished run
    return fmap


def _style_of(config: LocateConfig) -> tuple[str, Style]:
    """Name and style of generated pairs."""
    name = config.probes or probe_style(resolve(config.model)[0])
    return name, STYLES[name] if config.size is None else STYLES[name].resized(config.size)


def _check_generated(config: LocateConfig) -> None:
    """Refuse what can't be drawn while the folder is nobody's yet."""
    drawn_pairs(config.functions or PAPER_FUNCTIONS, config.pairs, config.seed, _style_of(config)[1])


def _generated(config: LocateConfig) -> Path:
    """The folder of generated pairs, written into `out` like a user's own; a resumed run finds them there."""
    name, style = _style_of(config)
    functions = config.functions or PAPER_FUNCTIONS
    folder = config.out / "probes" / f"{name}-{style.size}-{config.pairs}-{config.seed}-{'-'.join(functions)}"
    if not (folder / PROBES_FILE).exists():
        make(folder, functions, pairs=config.pairs, seed=config.seed, style=style)
    return folder


def _chosen(pairs: list[Pair], functions: Sequence[str] | None, folder: Path) -> list[Pair]:
    present = list(dict.fromkeys(pair.function for pair in pairs))
    unknown = [name for name in functions or () if name not in present]
    if unknown:
        raise InputError(f"The suite {folder} has no pairs for {', '.join(unknown)}; it has {', '.join(present)}.")
    return [pair for pair in pairs if functions is None or pair.function in functions]


def _check_layers(config: LocateConfig, functions: set[str], vlm: VLM) -> None:
    """A user's own layers, before the sweep that they would otherwise end."""
    for name, layers in config.layers.items():
        if name not in functions:
            raise InputError(f"Layers were given for {name!r}; the probes ask {', '.join(sorted(functions))}.")
        outside = [layer for layer in layers if not 0 <= layer < vlm.num_layers]
        if outside or not layers:
            raise InputError(
                f"Layers {layer_list(sorted(layers))} were given for {name!r}; the model has {vlm.num_layers}: "
                f"0 to {vlm.num_layers - 1}."
            )


def _answered(records: pa.Table) -> tuple[pa.Table, list[str]]:
    """The records of functions with a kept pair, and the names of the others; all of them where none has one."""
    counts = kept_counts(records)
    unanswered = [name for name, (kept, _) in counts.items() if not kept]
    if not unanswered or len(unanswered) == len(counts):  # an error that says so follows where none has one
        return records, unanswered
    for name in unanswered:
        logger.warning("no pair of %s was answered correctly on both images; the map leaves it out", name)
    return records.filter(~pc.field("function").isin(unanswered)), unanswered
