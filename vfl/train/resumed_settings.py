"""What may differ when a run is resumed: what no weight depends on, and more steps where no step so far does."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from vfl.train.arguments import DEFAULTS

MAY_CHANGE = {"out", "checkpointing"}
"""Of the recipe: where a run lies, and what it recomputes."""
DATA_MAY_CHANGE = {"workers"}
"""Of its data: how many processes prepare the rows."""
_WATCHING = {"disable_tqdm", "report_to", "run_name", "project", "log_level", "log_level_replica", "log_on_each_node"}
_LOGGING = {"logging_steps", "logging_strategy", "logging_first_step", "logging_nan_inf_filter"}
_SAVING = {"save_steps", "save_strategy", "save_total_limit", "save_on_each_node"}
_LOADING = {
    "dataloader_num_workers",
    "dataloader_pin_memory",
    "dataloader_persistent_workers",
    "dataloader_prefetch_factor",
    "dataloader_multiprocessing_context",
}
TRAINER_MAY_CHANGE = _WATCHING | _LOGGING | _SAVING | _LOADING | {"ddp_timeout", "hub_token"}
"""Of its trainer: who is told, what is kept, and how many processes read."""
_LENGTH = ("num_train_epochs", "max_steps")


def as_before(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a resumed run, with what may have changed as it was before: compare these with `before`."""
    settings = deepcopy(dict(now))
    earlier, trainer = before.get("trainer") or {}, settings.get("trainer") or {}
    for key in TRAINER_MAY_CHANGE | (set(_LENGTH) if goes_on(before, now) else set()):
        if key in earlier:
            trainer[key] = earlier[key]
        else:
            trainer.pop(key, None)
    settings |= {"trainer": trainer}
    if "data" in settings:
        settings["data"] |= {key: before["data"].get(key) for key in DATA_MAY_CHANGE}
    return settings


def goes_on(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a run is only longer than it was: no learning rate and no frozen layer so far depended on its length."""
    if before.get("freeze") or now.get("freeze"):
        return False
    old, new = (DEFAULTS | dict(settings.get("trainer") or {}) for settings in (before, now))
    steps = [_length(trainer) for trainer in (old, new)]
    if old == new or steps[0][0] != steps[1][0] or not steps[1][1] > steps[0][1]:
        return False
    warmup = old["warmup_steps"]
    rates = (old["lr_scheduler_type"], new["lr_scheduler_type"])
    return set(rates) <= {"constant", "constant_with_warmup"} and (warmup == 0 or warmup >= 1)


def _length(trainer: Mapping[str, Any]) -> tuple[str, float]:
    """In steps where they are given, else in epochs."""
    steps = trainer.get("max_steps", -1)
    return ("steps", steps) if steps > 0 else ("epochs", trainer["num_train_epochs"])
