"""The folder of a run: whose results it holds, and whether this run may go on there."""

import json
from typing import Any

from vfl.errors import InputError
from vfl.io.atomic import replacing
from vfl.locate.config import LocateConfig

PARTS = "parts"
SETTINGS = "settings.json"
# These say where and how to run, not what is measured: a run may be resumed with others.
_NOT_MEASURED = {"out", "device", "device_map", "part_pairs", "choice", "layers"}


def refuse_if_taken(config: LocateConfig, *, overwrite: bool, resume: bool) -> None:
    """Say whose the output folder is, unless this run may use it. Nothing is written.

    Raises:
        InputError: it holds another run's map, or an interrupted run with other settings.
    """
    out = config.out
    finished, started = (out / "map.json").exists(), (out / SETTINGS).exists()
    if resume and finished:
        raise InputError(f"{out} holds a finished run; there is nothing to resume. Use --overwrite to run it again.")
    if (finished or started) and not (overwrite or resume):
        what = "a function map" if finished else "an interrupted run"
        hint = "" if finished else "--resume to go on with it, "
        raise InputError(f"{out} holds {what}. Use {hint}--overwrite to replace it, or another --out folder.")
    if resume and started:
        before, settings = json.loads((out / SETTINGS).read_text(encoding="utf-8")), settings_of(config)
        other = sorted(key for key in {*before, *settings} - _NOT_MEASURED if before.get(key) != settings.get(key))
        if other:
            listed = ", ".join(f"{key}: {before.get(key)!r} then, {settings.get(key)!r} now" for key in other)
            raise InputError(
                f"The interrupted run in {out} had other settings ({listed}). Use the same, or --overwrite."
            )


def claim(config: LocateConfig, *, overwrite: bool, resume: bool) -> None:
    """Make the output folder this run's: what it replaces goes, its settings are written. Raises as above."""
    refuse_if_taken(config, overwrite=overwrite, resume=resume)
    out = config.out
    if overwrite:
        for part in (out / PARTS).glob("*.parquet"):
            part.unlink()
        for name in ("map.json", "report.html", "curves.png", "pairs.parquet", SETTINGS):
            (out / name).unlink(missing_ok=True)
    if not (out / SETTINGS).exists():
        with replacing(out / SETTINGS) as temporary:
            temporary.write_text(json.dumps(settings_of(config), indent=2) + "\n", encoding="utf-8")


def settings_of(config: LocateConfig) -> dict[str, Any]:
    """What is saved of a configuration: everything but where its results go."""
    return config.model_dump(mode="json", exclude={"out"}, exclude_none=True)
