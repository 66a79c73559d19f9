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
from vfl.io.config import validated
from vfl.io.layers import layer_list
from vfl.loading.config import EMBEDDED_ID, identify, load_from
from vfl.loading.load import EMBEDDED, resolve
from vfl.locate.config import LocateConfig
from vfl.locate.folder import PARTS, claim, refuse_if_taken, settings_of
from vfl.locate.map_entries import build_entries, kept_counts
from vfl.locate.records import unite
from vfl.locate.recovery import read_truth
from vfl.locate.report.write import write_report
from vfl.locate.sweeping import sweep_all
from vfl.models.identity import versions
from vfl.models.vlm import VLM
from vfl.probes.asking import Asker
from vfl.probes.functions import PAPER_FUNCTIONS
from vfl.probes.make import make
from vfl.probes.pair import PROBES_FILE, Pair, read_suite, suite_sha256
from vfl.probes.style import STYLES

logger = logging.getLogger(__name__)

TEST_BED = "The embedded model is a test bed with planted function layers; it says nothing about large models."


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
    config = validated(LocateConfig, {"model": name, "out": out, **settings}, source="settings")
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
    # What a user can get wrong is found before anything is written, and before the slow steps.
    refuse_if_taken(config, overwrite=overwrite, resume=resume)
    names_suite = config.probes is not None and config.probes not in STYLES
    suite = Path(config.probes or "") if names_suite else None
    pairs = _chosen(read_suite(suite), config.functions, suite) if suite else []
    vlm = vlm or load_from(config)
    _check_layers(config, {pair.function for pair in pairs} or set(config.functions or PAPER_FUNCTIONS), vlm)
    claim(config, overwrite=overwrite, resume=resume)
    if suite is None:
        suite = _generated(config)
        pairs = read_suite(suite)
    records = sweep_all(Asker(vlm), pairs, config, out / PARTS, progress=progress)
    answered, unanswered = _answered(records)
    all_entries = build_entries(answered, vlm.num_layers, config.choice, config.layers or None)
    entries = {
        name: all_entries[name] for name in dict.fromkeys(pair.function for pair in pairs) if name in all_entries
    }
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
    fmap.save(out / "map.json")  # last: a folder with a map is a finished run
    return fmap


def _generated(config: LocateConfig) -> Path:
    """The folder of generated pairs, written into `out` like a user's own; a resumed run finds them there."""
    name = config.probes or ("micro" if resolve(config.model)[0] == str(EMBEDDED) else "standard")
    style = STYLES[name]
    if config.size is not None:
        style = style.resized(config.size)
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
