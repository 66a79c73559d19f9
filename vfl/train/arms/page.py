"""arms.html: what the arms of a study reach and cost, as pictures and tables on one page that works offline."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vfl.io.json_files import write_text
from vfl.report.charts import Ink, inks
from vfl.report.page import environment
from vfl.report.scatter import Point, Scatter, scatter
from vfl.train.arms.grids import change, grids, notes, share
from vfl.train.arms.pareto import front
from vfl.train.arms.summary import ArmResult, StudyResult
from vfl.train.report.before_after import Rate

TEMPLATES = Path(__file__).resolve().parent
PAGE = "arms.html"

Numbers = tuple[float, float, float]


@dataclass(frozen=True)
class Axis:
    """A number of an arm with its interval, or None; `better` is 1 where more is better, else -1."""

    name: str
    of: Callable[[ArmResult], Numbers | None]
    better: int


def _in_per_cent(rate: Rate | None) -> Numbers | None:
    return None if rate is None else (100 * rate.value, 100 * rate.low, 100 * rate.high)


def _exactly(value: float | None) -> Numbers | None:
    return None if value is None else (value, value, value)


NEW = Axis("new skill, % right", lambda arm: _in_per_cent(arm.new), 1)
FORGOTTEN = Axis("forgotten, points", lambda arm: _in_per_cent(arm.forgotten), -1)
PARAMETERS = Axis("trained parameters", lambda arm: _exactly(arm.parameters), -1)
SECONDS = Axis("seconds of a step", lambda arm: _exactly(arm.step_seconds), -1)


def write_page(result: StudyResult, out: Path) -> Path:
    """Write arms.html and return its path."""
    ink = inks([arm.arm for arm in result.arms])
    pairs = [(NEW, PARAMETERS), (NEW, SECONDS), (FORGOTTEN, PARAMETERS), (FORGOTTEN, SECONDS)]
    small = [drawn for up, right in pairs if (drawn := picture(result, up, right, ink))]
    text = (
        environment(TEMPLATES)
        .get_template("arms.html.jinja")
        .render(
            result=result,
            legend=[(number, arm.arm, ink[arm.arm]) for number, arm in enumerate(result.arms, 1)],
            main=picture(result, NEW, FORGOTTEN, ink),
            small=small,
            grids=grids(result),
            notes=notes(result),
        )
    )
    write_text(out / PAGE, text)
    return out / PAGE


def picture(result: StudyResult, up: Axis, right: Axis, ink: Mapping[str, Ink]) -> Scatter | None:
    """Two numbers of every arm against each other, with the front; None where an arm lacks one of them."""
    points, worth = [], []
    for arm in result.arms:
        x, y = right.of(arm), up.of(arm)
        if x is None or y is None:
            return None
        points.append(Point(arm.arm, x, y, _says(arm)))
        worth.append((up.better * y[0], -right.better * x[0]))
    return scatter(up.name, right.name, points, front(worth), ink)


def _says(arm: ArmResult) -> str:
    seconds = "" if arm.step_seconds is None else f", {arm.step_seconds:.3g} s a step"
    return (
        f"{arm.arm}: new {share(arm.new)}, forgotten {change(arm.forgotten, plus=False)}, {arm.parameters:,} parameters"
        f"{seconds}"
    )
