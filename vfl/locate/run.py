"""`vfl locate`: probe a model, find its function layers, write the map and its report.

vfl locate Qwen/Qwen2.5-VL-3B-Instruct --out runs/qwen2.5-vl-3b
"""

import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vfl.errors import InputError
from vfl.functionmap import PIXELS, FunctionEntry, FunctionMap
from vfl.io.layers import layer_list
from vfl.io.run_folder import RunFolder
from vfl.io.versions import versions
from vfl.launching.own_device import on_own_device
from vfl.launching.ranks import ALONE, Ranks
from vfl.loading.beds import EMBEDDED, EMBEDDED_ID, probe_style
from vfl.loading.config import configured, identify, load_from, with_limits_of
from vfl.loading.load import resolve
from vfl.loading.untrained import refuse_unequal, untrained
from vfl.locate.config import LocateConfig
from vfl.locate.map_entries import build_entries, kept_counts, with_random_weights
from vfl.locate.off_manifold import off_manifold
from vfl.locate.records import unite
from vfl.locate.recovery import read_truth
from vfl.locate.report.write import write_report
from vfl.locate.screen_rule import saved_screenings
from vfl.locate.screening import SCREENS, refuse_unscreenable
from vfl.locate.significance import pairs_needed
from vfl.locate.sweeping import by_function, first_blocks, sweep_all
from vfl.models.vlm import VLM
from vfl.probes.asking import Asker
from vfl.probes.functions import PAPER_FUNCTIONS
from vfl.probes.make import draw_group, drawn_pairs, make
from vfl.probes.pair import PROBES_FILE, Pair, read_suite, suite_sha256
from vfl.probes.style import STYLES, Style

logger = logging.getLogger(__name__)

PARTS, RECORDS, MAP = "parts", "pairs.parquet", "map.json"
RANDOM_PARTS, RANDOM = "random-weights-parts", "random-weights.parquet"
# These say where and how to run, not what is measured: a run may be resumed with others.
_NOT_MEASURED = {"out", "device", "device_map", "part_pairs", "choice", "layers", "random_weights", "off_manifold"}
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
    ranks: Ranks = ALONE,
) -> FunctionMap:
    """Run a validated configuration; see `locate`.

    Several processes that a launcher started all call this with their `ranks`: the first holds the folder and writes
    what lies there, all sweep the pairs, each those that are dealt to it, and all get the map.
    """
    folder = RunFolder(config.out, MAP, holds="a function map")
    if vlm is not None:
        config = with_limits_of(config, vlm)
    with ExitStack() as held:

        def claim() -> None:
            held.enter_context(folder.held(overwrite=overwrite, resume=resume))
            if resume and not overwrite:
                processors = {name for name in PIXELS if getattr(config, name) is None}  # known when it is loaded
                folder.refuse_other_settings(settings_of(config), may_change=_NOT_MEASURED | processors)

        ranks.first(claim)
        return _run(config, folder, vlm, overwrite=overwrite, progress=progress, ranks=ranks)


def settings_of(config: LocateConfig) -> dict[str, Any]:
    """What is saved of a configuration: everything but where its results go."""
    asked_for = ("screen", "random_weights", "off_manifold")
    unsaid = {"out"} | {name for name in asked_for if not getattr(config, name)}
    return config.model_dump(mode="json", exclude=unsaid, exclude_none=True)


def _run(
    config: LocateConfig, folder: RunFolder, vlm: VLM | None, *, overwrite: bool, progress: bool, ranks: Ranks
) -> FunctionMap:
    # What a user can get wrong is found before anything is written, and before the slow steps.
    own = ranks.first(partial(_own_pairs, config))
    with ranks.together():
        vlm = vlm or load_from(config if ranks.size == 1 else on_own_device(config))
    config = with_limits_of(config, vlm)
    suite, pairs = ranks.first(partial(_begin, config, folder, vlm, own, overwrite=overwrite))
    records = sweep_all(
        Asker(vlm), pairs, config, config.out / PARTS, united=config.out / RECORDS, progress=progress, ranks=ranks
    )
    anew = None
    if config.random_weights:
        drawn = untrained(vlm, config.seed)
        plain = config.model_copy(update={"screen": False, "unfiltered": False})
        anew = sweep_all(
            Asker(drawn),
            pairs,
            plain,
            config.out / RANDOM_PARTS,
            united=config.out / RANDOM,
            untrained=True,
            progress=progress,
            ranks=ranks,
        )
    return ranks.first(partial(_finish, config, vlm, suite, pairs, records, anew))


def _own_pairs(config: LocateConfig) -> list[Pair]:
    """The chosen pairs of a user's own suite; none where they are to be drawn, which then is known to be possible."""
    if (suite := _own_suite(config)) is None:
        drawn_pairs(config.functions or PAPER_FUNCTIONS, config.pairs, config.seed, _style_of(config)[1], config.group)
        return []
    return _chosen(read_suite(suite), config.functions, suite)


def _own_suite(config: LocateConfig) -> Path | None:
    return None if config.probes is None or config.probes in STYLES else Path(config.probes)


def _begin(
    config: LocateConfig, folder: RunFolder, vlm: VLM, own: list[Pair], *, overwrite: bool
) -> tuple[Path, list[Pair]]:
    """The suite and its pairs, once the folder is this run's; `own` are the user's."""
    if folder.started and not overwrite:
        folder.refuse_other_settings(settings_of(config), may_change=_NOT_MEASURED)
    if config.screen:
        refuse_unscreenable(vlm)
    if config.random_weights:
        refuse_unequal(vlm)
    _check_layers(config, {pair.function for pair in own} or set(config.functions or PAPER_FUNCTIONS), vlm)
    if config.group is not None and not own:
        _check_groups(config, vlm)
    if overwrite:
        parts = [f"{PARTS}/*.parquet", f"{RANDOM_PARTS}/*.parquet"]
        folder.clear([*parts, "report.html", "curves.png", RECORDS, RANDOM, SCREENS])
    if not folder.started:
        folder.save(settings_of(config))
    if (suite := _own_suite(config)) is not None:
        return suite, own
    suite = _generated(config)
    return suite, read_suite(suite)


def _finish(
    config: LocateConfig, vlm: VLM, suite: Path, pairs: list[Pair], records: pa.Table, anew: pa.Table | None
) -> FunctionMap:
    """The map and its report, from all records; `anew` are those with random weights."""
    out = config.out
    answered, unanswered = _answered(records)
    of_functions = by_function(pairs)
    screens = saved_screenings(config, of_functions, first_blocks(vlm.num_layers, config), vlm.num_layers)
    left_out = {name: screen.left_out(answered) for name, screen in screens.items()}
    built = build_entries(answered, vlm.num_layers, config.choice, config.layers or None, left_out)
    entries = {name: built[name] for name in of_functions if name in built}
    if anew is not None:
        entries = with_random_weights(entries, build_entries(anew, vlm.num_layers, config.choice), config.seed)
        unite(anew, out / RANDOM_PARTS, out / RANDOM)
    if config.off_manifold:
        entries = _with_distances(vlm, config, entries, of_functions, answered)
    model = identify(vlm)
    fmap = FunctionMap(
        model=model,
        functions=entries,
        settings=settings_of(config) | {"unanswered": unanswered},
        probes_sha256=suite_sha256(suite),
        versions=versions(),
    )
    unite(records, out / PARTS, out / RECORDS)
    embedded = model.id == EMBEDDED_ID
    notes = [TEST_BED] if embedded else []
    notes += [f"No pair of {name} was answered correctly on both images: it has no layers here." for name in unanswered]
    truth = read_truth(EMBEDDED) if embedded else None
    write_report(out, fmap, answered, pairs, planted=truth, note=" ".join(notes))
    fmap.save(out / MAP)  # last: a folder with a map is a finished run
    return fmap


def _with_distances(
    vlm: VLM,
    config: LocateConfig,
    entries: dict[str, FunctionEntry],
    of_functions: dict[str, list[Pair]],
    records: pa.Table,
) -> dict[str, FunctionEntry]:
    """The entries, each with how far swapped states of its kept pairs lie from ordinary ones."""
    asker, out = Asker(vlm), {}
    for name, entry in entries.items():
        rows = records.filter((pc.field("function") == name) & pc.field("kept"))
        kept = set(rows["pair_id"].to_pylist())
        pairs = [pair for pair in of_functions[name] if pair.id in kept]
        out[name] = entry.model_copy(update={"off_manifold": off_manifold(asker, pairs, config.reading)})
    return out


def _style_of(config: LocateConfig) -> tuple[str, Style]:
    """Name and style of generated pairs."""
    name = config.probes or probe_style(resolve(config.model)[0])
    return name, STYLES[name] if config.size is None else STYLES[name].resized(config.size)


def _generated(config: LocateConfig) -> Path:
    """The folder of generated pairs, written into `out` like a user's own; a resumed run finds them there."""
    name, style = _style_of(config)
    functions = config.functions or PAPER_FUNCTIONS
    grouped = "" if config.group is None else f"-group{config.group}"
    name = f"{name}-{style.size}-{config.pairs}-{config.seed}{grouped}-{'-'.join(functions)}"
    folder = config.out / "probes" / name
    if not (folder / PROBES_FILE).exists():
        make(folder, functions, pairs=config.pairs, seed=config.seed, style=style, group=config.group)
    return folder


def _chosen(pairs: list[Pair], functions: Sequence[str] | None, folder: Path) -> list[Pair]:
    present = list(dict.fromkeys(pair.function for pair in pairs))
    unknown = [name for name in functions or () if name not in present]
    if unknown:
        raise InputError(f"The suite {folder} has no pairs for {', '.join(unknown)}; it has {', '.join(present)}.")
    return [pair for pair in pairs if functions is None or pair.function in functions]


def _check_groups(config: LocateConfig, vlm: VLM) -> None:
    """Groups that are too few to tell layers apart, before they are asked."""
    assert config.group is not None
    needed = pairs_needed(vlm.num_layers, config.choice.alpha)
    for function in config.functions or PAPER_FUNCTIONS:
        size = len(draw_group(function, 0, config.seed, _style_of(config)[1], config.group))
        if (groups := math.ceil(config.pairs / size)) < needed:
            raise InputError(
                f"{config.pairs} pairs of {function} are {groups} group{'s' if groups > 1 else ''} of {config.group} "
                f"images, and a group counts as one sample: at least {needed} are needed before one of "
                f"{vlm.num_layers} layers is significant. Give --pairs {needed * size} or more, or a smaller --group."
            )


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
