"""What a study would do: its runs, what is left of them, and about how long that takes."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfl.train.arms.devices import places, visible_devices
from vfl.train.arms.estimate import estimate
from vfl.train.arms.plan import ArmRun, Study
from vfl.train.checkpoints import checkpoints
from vfl.train.run import CHECKPOINTS


def show_plan(study: Study, jobs: int, console: Console, *, spread: bool = False) -> None:
    """Print every run with its state, and the estimate; nothing is written.

    Args:
        spread: whether a launcher spreads each run over several GPUs.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("arm", "rate", "seed", "state", "folder"):
        table.add_column(head, justify="left" if head in ("arm", "state", "folder") else "right", overflow="fold")
    for run in study.runs:
        rate = "TRL's" if run.rate is None else f"{run.rate:g}"
        table.add_row(*map(Text, (run.arm, rate, str(run.seed), _state(run), run.folder.name)))
    console.print(table)
    for sentence in _sentences(study, jobs, spread):
        console.print(sentence, markup=False, highlight=False)


def _sentences(study: Study, jobs: int, spread: bool) -> list[str]:
    left = sum(not run.finished for run in study.runs)
    gpus = [devices for devices in places(visible_devices(), jobs, spread=spread) if devices is not None]
    where = f", on GPU {' | '.join(gpus)}" if gpus else ", on the CPU"
    time = estimate(study, jobs)
    takes = f"about {_spoken(time.seconds)}, " if time.seconds is not None else ""
    return [
        f"{len(study.runs)} runs, {left} left, {jobs} at a time{where}.",
        f"Left: {takes}{time.rests_on}." if left else "Nothing is left.",
    ]


def _state(run: ArmRun) -> str:
    if run.finished:
        return "finished"
    at = checkpoints(run.folder / CHECKPOINTS) if (run.folder / CHECKPOINTS).exists() else []
    return f"begun, {at[-1].name}" if at else "waits"


def _spoken(seconds: float) -> str:
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} seconds"
