"""`vfl negatives`: rejected answers from a model that is blind at a function's layers, ready for `method: dpo`.

vfl negatives train.jsonl --model Qwen/Qwen2.5-VL-3B-Instruct --map runs/map --functions counting --out runs/negatives
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from vfl.data import BadRow, Sample, read
from vfl.errors import InputError
from vfl.functionmap import MAP
from vfl.io.progress import progress_bar
from vfl.io.run_folder import RunFolder
from vfl.loading.beds import EMBEDDED_ID
from vfl.loading.config import configured, identify, load_from
from vfl.models.vlm import VLM
from vfl.negatives.asking import WHY, Asker, Outcome
from vfl.negatives.config import NegativesConfig
from vfl.negatives.layers import blind_layers
from vfl.negatives.parts import PARTS, asked_in_parts, saved
from vfl.negatives.result import (
    ANSWERS,
    MANIFEST,
    ROWS,
    MapId,
    Negatives,
    home_of,
    kept_rows,
    write_answers,
    write_rows,
)

# These say where and how to run, not what is answered: a run may be resumed with others. `batch` moves rounding alone.
NOT_ANSWERED = {"out", "device", "device_map", "batch"}


def negatives(
    data: str | Path | Sequence[str | Path],
    model: str | Path | VLM = EMBEDDED_ID,
    *,
    out: str | Path,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Negatives:
    """Make preference rows whose rejected answers come from the model with the image hidden at some layers.

    Each row's last answer is the chosen one. A row is kept where the blind model says something else, as `match`
    compares answers.

    Args:
        data: rows to train on: files, folders of shards or saved datasets, in any format that is read.
        model: folder, hub id, a loaded VLM, or "embedded", the test model.
        out: folder for the rows; a recipe's `data.train` takes it as it is, with `method: dpo`.
        overwrite: replace the results of another run in `out`.
        resume: go on with an interrupted run in `out`.
        progress: show a progress bar.
        settings: fields of `NegativesConfig`: map and functions, or blind; only_answered, match, images, batch, ...

    Returns:
        What manifest.json says: layers, and how many rows were kept and why others were not.

    Raises:
        InputError: for settings, data, maps or models that can't be used, or when no row is kept.

    Example:
        >>> vfl.negatives("train.jsonl", blind="5", out="runs/negatives")  # doctest: +SKIP
    """
    config, loaded = configured(NegativesConfig, model, {"data": _paths(data), "out": out, **settings})
    return run(config, vlm=loaded, overwrite=overwrite, resume=resume, progress=progress)


def run(
    config: NegativesConfig,
    *,
    vlm: VLM | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
) -> Negatives:
    """Run a validated configuration; see `negatives`."""
    folder = folder_of(config)
    with folder.held(overwrite=overwrite, resume=resume):
        settings = settings_of(config)
        if resume and not overwrite:
            folder.refuse_other_settings(settings, may_change=NOT_ANSWERED)
        read_rows = partial(_rows, config)
        read_rows()  # what is wrong with paths and formats is found before the model is loaded
        vlm = vlm or load_from(config)
        layers = blind_layers(config, vlm)
        if overwrite:
            folder.clear([PARTS, ROWS, ANSWERS])
        if not folder.started:
            folder.save(settings)
        return _run(config, vlm, layers, settings, progress=progress)


def folder_of(config: NegativesConfig) -> RunFolder:
    """The folder of a run."""
    return RunFolder(config.out, MANIFEST, holds="preference rows")


def settings_of(config: NegativesConfig) -> dict[str, Any]:
    """What is saved of a configuration: everything but where its results go."""
    return config.model_dump(mode="json", exclude={"out"}, exclude_none=True)


def _run(
    config: NegativesConfig, vlm: VLM, layers: list[int], settings: dict[str, Any], *, progress: bool
) -> Negatives:
    out, model = config.out, identify(vlm)
    asker = Asker(vlm, config, layers)
    answered = {key: value for key, value in settings.items() if key not in NOT_ANSWERED}
    facts = [model.model_dump_json(), str(layers), str(sorted(answered.items()))]
    counts: Counter[Outcome] = Counter()
    parts = 0
    with progress_bar(desc="blind answers", unit=" rows", total=config.first, disable=not progress, leave=False) as bar:
        for part in asked_in_parts(_rows(config), out / PARTS, facts, partial(asker.ask, on_rows=bar.update)):
            counts.update(asked.outcome for asked in part)
            parts += 1
    rows, kept = counts.total(), counts.pop("kept", 0)
    if not kept:
        why = "; ".join(f"{count}: {WHY[name]}" for name, count in counts.most_common()) or "it has none"
        raise InputError(
            f"No row of {', '.join(map(str, config.data))} gives a preference pair ({why}). Hide the image at other "
            "layers, or give other rows."
        )
    asked = partial(saved, out / PARTS, parts)
    home = home_of(kept_rows(_rows(config), asked()))
    write_rows(kept_rows(_rows(config), asked()), out / ROWS, home)
    write_answers(asked(), out / ANSWERS)
    result = Negatives(
        images=None if home is None else str(home),
        model=model,
        map=_map_id(config),
        layers=layers,
        rows=rows,
        kept=kept,
        left_out=dict(counts.most_common()),
        settings=settings,
    )
    result.save(out)
    shutil.rmtree(out / PARTS)
    return result


def _rows(config: NegativesConfig) -> Iterator[Sample | BadRow]:
    rows = read(
        list(config.data),
        images=config.images,
        format=config.format,
        allow_remote=config.allow_remote,
        image_column=config.image_column,
    )
    return islice(rows, config.first)


def _map_id(config: NegativesConfig) -> MapId | None:
    if config.map is None:
        return None
    path = MAP.path_of(config.map)
    return MapId(path=str(path.absolute()), sha256=sha256(path.read_bytes()).hexdigest(), functions=config.functions)


def _paths(data: str | Path | Sequence[str | Path]) -> list[str]:
    return [str(data)] if isinstance(data, str | Path) else list(map(str, data))
