"""Which job survives which fault, and how: the tests' own table, `tests/fault_jobs.py`, as Markdown."""

import runpy
from functools import cache
from typing import Any

from pages_from_code.sources import ROOT

REFUSED = "the second is refused: exit code 2, one paragraph that names the process and its machine; the first goes on"
SHARED = "both work, each on parts that the other has not; of a stalled or dead one the other takes over"


@cache
def tested() -> dict[str, Any]:
    """What the tests do: JOBS by name, and how many kills are counted over which."""
    return runpy.run_path(str(ROOT / "tests" / "fault_jobs.py"))


def table() -> str:
    """Three rows a job: killed, out of disk, met by another process."""
    rows = ["| job | fault | what happens | what to do | tested |", "|---|---|---|---|---|"]
    for job in tested()["JOBS"].values():
        again = f"`{job.again}`" if job.again.startswith("--") else job.again
        name = f"`vfl {job.name}`"
        kills = f"{job.kills} kill{'' if job.kills == 1 else 's'}, slow {job.slow_kills}"
        places = f"{job.full} place{'' if job.full == 1 else 's'}"
        kept = f"stays: {job.kept}; equal in the end: {job.equal}"
        rows += [
            f"| {name} | killed | {kept} | {again} | {kills} |",
            f"| {name} | disk full | exit code 2, one paragraph; then as after a kill | make room, {again} "
            f"| {places} |",
            f"| {name} | another process | {SHARED if job.shared else REFUSED} | "
            f"{'nothing' if job.shared else 'wait, or another folder'} | {tested()['OTHERS']['default']}, slow "
            f"{tested()['OTHERS']['slow']} |",
        ]
    return "\n".join(rows)


def counts() -> str:
    """How much the suites run, in a sentence."""
    jobs, long = tested()["JOBS"], tested()["KILLED"]
    named = f"{', '.join(f'`vfl {name}`' for name in long[:-1])} and `vfl {long[-1]}`"
    default, slow = (sum(getattr(jobs[name], which) for name in long) for which in ("kills", "slow_kills"))
    others = [sum(getattr(job, which) for job in jobs.values()) for which in ("kills", "slow_kills")]
    return (
        f"The default suite kills {named} {default} times, the slow suite {slow} times; with the shorter jobs it is "
        f"{others[0]} and {others[1]}. The disk becomes full at {sum(job.full for job in jobs.values())} places."
    )
