"""What loggers are told: every one of them accuracies and metrics as numbers; Weights & Biases tables and plots too.

Weights & Biases stays offline where nobody is logged in.
"""

import configparser
import logging
import netrc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from transformers import Trainer

from vfl.train.report.log import Curve

logger = logging.getLogger(__name__)
HOST = "https://api.wandb.ai"
STEP = "train/global_step"  # the x-axis that transformers' WandbCallback declares


def offline_without_login() -> bool:
    """Keep wandb offline when there is no login, so that it never asks for one; call it before wandb is used.

    Sets WANDB_MODE, unless that already says offline or disabled. A login is an API key or an identity token in the
    environment, an entry in the netrc file, or a key in wandb's settings file: where wandb looks, too. Its own answer,
    `wandb.login(prompt=False)`, came after versions that other packages pin and that would ask here.

    Returns:
        Whether the mode was set.
    """
    if os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled") or _logged_in():
        return False
    os.environ["WANDB_MODE"] = "offline"
    logger.warning("wandb has no login here: the run is kept offline. `wandb login` and `wandb sync FOLDER` upload it.")
    return True


def sender(trainer: Trainer) -> Callable[[dict[str, float]], None]:
    """A function that gives numbers to all loggers of a trainer, at its step."""

    def send(numbers: dict[str, float]) -> None:
        pending = trainer.control.should_log  # the loss of this step, which is logged behind the callbacks
        # Not TRL's own, which would add its running means to these numbers and begin them anew.
        Trainer.log(trainer, dict(numbers))
        trainer.control.should_log = pending

    return send


def numbers_of(groups: dict[str, dict[str, Any]], results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Accuracy and forgetting of each group, and the metrics' scalars, under names that Transformers' loggers know."""
    numbers = {
        f"eval_{group}/{name}": values[name]
        for group, values in groups.items()
        for name in ("accuracy", "forgetting")
        if name in values
    }
    for metric, result in results.items():
        for name, scalar in result["scalars"].items():
            if scalar["value"] is not None:
                numbers[f"eval_metrics/{metric}/{name}"] = scalar["value"]
    return numbers


def log_accuracies(groups: dict[str, dict[str, Any]], step: int) -> None:
    """Accuracy and forgetting of each group as scalars of the current wandb run, if there is one."""
    import wandb

    if wandb.run is None:
        return
    scalars = {
        f"eval/{group}/{name}": values[name]
        for group, values in groups.items()
        for name in ("accuracy", "forgetting")
        if name in values
    }
    wandb.run.log({**scalars, STEP: step})


def log_metrics(results: dict[str, dict[str, Any]], curves: dict[str, list[tuple[int, Curve]]], step: int) -> None:
    """Metrics of this step as scalars, and all their curves so far as tables and line plots (a line each step).

    Args:
        results: metric -> result (vfl/metrics/result.py).
        curves: "metric: curve" -> (step, curve) of this step and those before, as `vfl.train.report.log` reads them.
        step: the training step.
    """
    import wandb

    if wandb.run is None:
        return
    logged: dict[str, Any] = {STEP: step}
    for metric, result in results.items():
        for name, scalar in result["scalars"].items():
            if scalar["value"] is not None:
                logged[f"metrics/{metric}/{name}"] = scalar["value"]
    for label, measured in curves.items():
        key = f"metrics/{label.replace(': ', '/')}"
        axis = measured[-1][1].axis
        rows = [[at, *place] for at, curve in measured for place in zip(curve.at, curve.value, strict=True)]
        logged[f"{key}/table"] = wandb.Table(columns=["step", axis, "value"], data=rows)
        logged[f"{key}/plot"] = wandb.plot.line_series(
            xs=[list(curve.at) for _, curve in measured],
            ys=[list(curve.value) for _, curve in measured],
            keys=[f"step {at}" for at, _ in measured],
            title=label,
            xname=axis,
        )
    wandb.run.log(logged)


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = configparser.ConfigParser()
    folder = Path(os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb")).expanduser()
    settings.read(folder / "settings")
    if settings.get("default", "api_key", fallback=""):
        return True
    url: str = os.environ.get("WANDB_BASE_URL") or settings.get("default", "base_url", fallback="") or HOST
    named = os.environ.get("NETRC")
    places = [Path(named)] if named else [Path("~/.netrc"), Path("~/_netrc")]
    for place in places:
        try:
            entry = netrc.netrc(place.expanduser()).authenticators(urlsplit(url).netloc)
        except (OSError, netrc.NetrcParseError):  # wandb passes over such a file too
            continue
        if entry and entry[2]:
            return True
    return False
