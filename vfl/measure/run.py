"""`vfl measure`: measure metrics of a model, and write metrics.json, report.html and figures.

vfl measure Qwen/Qwen2.5-VL-3B-Instruct --metrics var,cosine,drop --out runs/measured
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from vfl.errors import InputError
from vfl.io.json_files import write_json
from vfl.io.progress import progress_bar
from vfl.io.run_folder import RunFolder, differing, under_new_names
from vfl.io.versions import versions
from vfl.loading.beds import EMBEDDED_ID
from vfl.loading.config import configured, identify, load_from
from vfl.measure.asked_once import AskedOnce
from vfl.measure.config import ALL, MeasureConfig, check_metrics
from vfl.measure.judge import Judge
from vfl.measure.metrics_file import METRICS, MeasuredOn, Metrics
from vfl.measure.question_pairs import AskedPair, judged
from vfl.measure.report.lens_view import lens_view
from vfl.measure.report.write import FIGURES, REPORT, write_report
from vfl.measure.source import Source, source_of
from vfl.metrics.measure import known_metrics, measure_named
from vfl.models.vlm import VLM
from vfl.probes.asking import cut_warning
from vfl.probes.pair import Pair

logger = logging.getLogger(__name__)

PARTS = "parts"
BASE = "measured_on.json"
VIEW = "lens_view"
VIEW_OF = "lens"
VERDICTS = "judge.jsonl"


def measure(
    model: str | Path | VLM = EMBEDDED_ID,
    *,
    out: str | Path,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Metrics:
    """Measure interpretability metrics of a model on probes or on a user's data.

    Args:
        model: folder, hub id, a loaded VLM, or "embedded", the test model.
        out: folder for metrics.json, report.html and the figures.
        overwrite: replace the results of another run in `out`.
        resume: keep what `out` holds already, and measure the rest.
        progress: show a progress bar.
        settings: fields of `MeasureConfig`, such as metrics, data, pairs, options.

    Raises:
        InputError: for settings, data or models that can't be used, and when no metric applies.

    Example:
        >>> vfl.measure("Qwen/Qwen2.5-VL-3B-Instruct", metrics=["var", "drop"], out="runs/measured")  # doctest: +SKIP
    """
    config, loaded = configured(MeasureConfig, model, {"out": out, **settings})
    return run(config, vlm=loaded, overwrite=overwrite, resume=resume, progress=progress)


def run(
    config: MeasureConfig,
    *,
    vlm: VLM | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
    beside: Sequence[str] = (),
) -> Metrics:
    """Measure what a configuration names.

    Every finished metric is kept in `out`/parts, so that a run that goes on does not measure it again.

    Args:
        config: what to measure of which model, and where results go.
        vlm: the model, if it is loaded already.
        overwrite: replace another run's results.
        resume: keep the metrics of `out`, those that are not named too, and measure named ones that are not there or
            were measured with other options.
        progress: show a progress bar.
        beside: folders next to `out` with the reports of other data, to which this one's links lead.

    Raises:
        InputError: for settings or data that can't be used; for a metric that was named and can't be measured; or when
            none can be. With "all", a metric that does not apply is left out with its reason.
    """
    check_metrics(config.names, config.options)
    folder = folder_of(config)
    with folder.held(overwrite=overwrite, resume=resume):
        return _run(config, folder, vlm, overwrite=overwrite, progress=progress, beside=beside)


def folder_of(config: MeasureConfig) -> RunFolder:
    """The folder of a measurement."""
    return RunFolder(config.out, METRICS, holds="another run's metrics", grows=True)


def _run(
    config: MeasureConfig,
    folder: RunFolder,
    vlm: VLM | None,
    *,
    overwrite: bool,
    progress: bool,
    beside: Sequence[str],
) -> Metrics:
    parts = config.out / PARTS
    judge = Judge(config.judge, config.out / VERDICTS) if config.judge else None
    vlm = vlm or load_from(config)
    source = source_of(config, vlm.medium.name)
    measured_on = MeasuredOn(
        kind=source.kind,
        name=source.name,
        sha256=source.sha256(),
        n=len(source.pairs),
        functions=source.counts(),
        left_out=source.left_out,
    )
    pairs = [judged(pair, judge) for pair in source.pairs] if judge else source.pairs
    pairs = [pair.limited(config.max_new_tokens).lettered(config.letters) for pair in pairs]
    _refuse_options(vlm, config)
    if config.metrics != ALL:
        _refuse_unfit(vlm, config, pairs)  # before the folder is claimed: what is refused leaves no run to resume
    _claim(folder, config, _base(config, vlm, measured_on), overwrite=overwrite)
    earlier = _earlier(parts, config.names)
    if earlier:  # of a run that is added to: they stay in its results, and in the settings that make them again
        given = {name: part["given"] for name, part in earlier.items() if part["given"]}
        names = (*config.names, *earlier)
        config = config.model_copy(update={"metrics": names, "options": given | config.options})
        folder.save(_settings_of(config))
    measured = {name: part for name in config.names if (part := _kept(parts, name, config.options.get(name, {})))}
    waiting = [name for name in config.names if name not in measured]
    asked = AskedOnce(vlm)
    for name in (bar := progress_bar(waiting, desc="measuring", unit="metric", disable=not progress)):
        bar.set_postfix_str(name)
        measured[name] = _measure(asked, name, pairs, config)
        _save(parts / f"{name}.json", measured[name])
    metrics = Metrics(
        model=identify(vlm),
        data=measured_on,
        settings=_settings_of(config),
        metrics={name: measured[name]["result"] for name in config.names if "result" in measured[name]},
        not_measured={name: measured[name]["reason"] for name in config.names if "reason" in measured[name]},
        seconds={name: measured[name]["seconds"] for name in config.names},
    )
    if not metrics.metrics:
        reasons = " ".join(f"{name}: {reason}" for name, reason in metrics.not_measured.items())
        raise InputError(f"None of the metrics can be measured here. {reasons}")
    pictures = _pictures(vlm, pairs, config) if VIEW_OF in metrics.metrics else []
    write_report(config.out, metrics, pictures, notes=_notes(vlm, source, metrics), beside=beside)
    metrics.save(config.out)  # last: a folder with metrics.json is a finished run
    return metrics


def _measure(vlm: VLM, name: str, pairs: Sequence[Pair], config: MeasureConfig) -> dict[str, Any]:
    """One metric's part: its result, or the reason why it does not apply."""
    options = config.options.get(name, {})
    start = time.perf_counter()
    part: dict[str, Any] = {"given": _plain(options)}
    if reason := _unfit(vlm, name, pairs, options):
        part["reason"] = reason
    else:
        try:
            result = measure_named(vlm, [name], pairs, options={name: options} if options else None)[name]
        except (InputError, NotImplementedError) as error:
            if config.metrics != ALL or options:
                raise InputError(f"{name}: {error}") from error
            part["reason"] = str(error)
        else:
            if result["scalars"] or result["curves"]:
                part["result"] = result
            else:
                part["reason"] = "none of the samples has what it needs" + _lacking(result)
    if "reason" in part:
        if config.metrics != ALL:
            raise InputError(f"{name}: {part['reason']}")
        logger.warning("%s is left out: %s", name, part["reason"])
    part["seconds"] = round(time.perf_counter() - start, 2)
    return part


def _lacking(result: dict[str, Any]) -> str:
    """What samples of a result without numbers lack, where the metric says it."""
    without = result.get("without_object")
    return f" ({len(without)} of {result['n']} have no box or label)." if without else "."


def _refuse_options(vlm: VLM, config: MeasureConfig) -> None:
    """Refuse options that a metric can't be measured with on this model, before any is measured.

    Raises:
        InputError: names each metric with its reason.
    """
    reasons = []
    for name, options in config.options.items():
        check = known_metrics()[name].check
        if check is None:
            continue
        try:
            check(vlm, **{option: options[option] for option in signature(check).parameters if option in options})
        except InputError as error:
            reasons.append(f"{name}: {error}")
    if reasons:
        raise InputError(f"{' '.join(reasons)} Nothing was measured.")


def _refuse_unfit(vlm: VLM, config: MeasureConfig, pairs: Sequence[Pair]) -> None:
    """Refuse named metrics that can't apply to this model and data before any is measured, which may take hours.

    Raises:
        InputError: names each with its reason.
    """
    reasons = {
        name: reason for name in config.names if (reason := _unfit(vlm, name, pairs, config.options.get(name, {})))
    }
    if reasons:
        listed = " ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise InputError(f"{listed} Nothing was measured; leave {', '.join(reasons)} out.")


def _unfit(vlm: VLM, name: str, pairs: Sequence[Pair], options: Mapping[str, Any]) -> str | None:
    """Why a metric can't apply, as far as that is known without asking the model."""
    spec = known_metrics()[name]
    if spec.only_images and vlm.family.modality != "image":
        return f"it does not apply to {vlm.family.name}, which hears sounds: {spec.only_images}."
    if spec.needs == "pairs of images" and any("source_image" not in pair.images for pair in pairs):
        return (
            "it needs pairs of images, and rows of questions and answers have one image each, whatever their columns; "
            "give a probe suite (docs/pair-format.md)."
        )
    boxed = [pair for pair in pairs if any(pair.boxes.get(which) for which in pair.images)]
    asked_alone = all(isinstance(pair, AskedPair) and pair.single for pair in pairs)
    if spec.needs.startswith("pairs with boxes") and not boxed:
        column = "the column boxes or bbox of a row, or box_column" if asked_alone else "the key boxes of a pair"
        return f"it needs the object's box in an image ({column}); none of the {len(pairs)} pairs has one."
    if spec.needs == "pairs with boxes and labels" and not any(pair.label for pair in boxed):
        column = "the column label of a row, or label_column" if asked_alone else "the key label of a pair"
        return f"it needs the object's name ({column}); none of the {len(boxed)} pairs with a box has one."
    return spec.unfit(pairs, options) if spec.unfit else None


def _pictures(vlm: VLM, pairs: Sequence[Pair], config: MeasureConfig) -> list[dict[str, Any]]:
    """The interactive lens, kept like a metric; without it where tokens have no known place."""
    if not config.lens_images:
        return []
    path = config.out / PARTS / f"{VIEW}.json"
    options = {"images": config.lens_images}
    part = _kept(path.parent, VIEW, options)
    if part is None:
        try:
            part = {"given": options, "pictures": lens_view(vlm, pairs, config.lens_images)}
        except InputError as error:
            logger.warning("the interactive lens is left out: %s", error)
            return []
        _save(path, part)
    pictures: list[dict[str, Any]] = part["pictures"]
    return pictures


def _kept(parts: Path, name: str, options: dict[str, Any]) -> dict[str, Any] | None:
    """A part that was measured with these options."""
    path = parts / f"{name}.json"
    if not path.exists():
        return None
    part: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return part if part["given"] == _plain(options) else None


def _earlier(parts: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parts of metrics that are not named this time."""
    kept = {name: parts / f"{name}.json" for name in known_metrics() if name not in names}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in kept.items() if path.exists()}


def _base(config: MeasureConfig, vlm: VLM, measured_on: MeasuredOn) -> dict[str, Any]:
    """What all parts of a folder must share."""
    judge = None if config.judge is None else config.judge.model_dump(include={"url", "model"})
    return {
        "model": identify(vlm).model_dump(mode="json", exclude_none=True),
        "data": measured_on.sha256,
        "dtype": str(vlm.dtype),
        "quantize": config.quantize,
        "max_new_tokens": config.max_new_tokens,
        "letters": config.letters,
        "attn_implementation": config.attn_implementation,
        "chat_template": None if config.chat_template is None else config.chat_template.read_text(encoding="utf-8"),
        "judge": judge,
        "versions": versions(),
    }


def _claim(folder: RunFolder, config: MeasureConfig, base: dict[str, Any], *, overwrite: bool) -> None:
    """Make the folder this run's; raises InputError when its parts were measured on something else."""
    path = folder.path / PARTS / BASE
    # Parts that nothing says the origin of are what a kill left of an earlier run.
    if overwrite or not path.exists():
        folder.clear([f"{PARTS}/*.json", f"{FIGURES}/*.png", REPORT])
    if path.exists():
        before = under_new_names(json.loads(path.read_text(encoding="utf-8")), base)
        if other := [text for _, text in differing(before, base)]:
            raise InputError(
                f"The metrics in {folder.path} were measured with other settings ({', '.join(other)}). Use the same, "
                "--overwrite to measure anew, or another --out folder."
            )
        (folder.path / METRICS).unlink(missing_ok=True)
    else:
        _save(path, base)
    folder.save(_settings_of(config))


def _settings_of(config: MeasureConfig) -> dict[str, Any]:
    """What is saved of a configuration: everything but where its results go."""
    return config.model_dump(mode="json", exclude={"out"}, exclude_none=True)


def _notes(vlm: VLM, source: Source, metrics: Metrics) -> list[str]:
    cut = [f"{name}: {cut_warning(part['cut'])}" for name, part in metrics.metrics.items() if part.get("cut")]
    return [*vlm.notes, *source.notes, *cut, *(f"Left out: {reason}" for reason in source.left_out)]


def _save(path: Path, content: Any) -> None:
    write_json(path, content, indent=None)


def _plain(options: Any) -> Any:
    """Options as JSON holds them."""
    return json.loads(json.dumps(options))
