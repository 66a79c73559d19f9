"""Which jobs meet which faults in the tests, and how often: the test and the page on faults read the same table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FaultJob:
    """A command and its faults.

    Attributes:
        name: of the command.
        kills: SIGKILLs in the default suite.
        slow_kills: SIGKILLs in the slow suite.
        full: places at which the disk becomes full.
        again: how a run goes on after either.
        kept: what is finished when a run goes on.
        equal: what equals an uninterrupted run's in the end.
        shared: several processes work in one folder together; else the second is refused.
    """

    name: str
    kills: int
    slow_kills: int
    full: int
    again: str
    kept: str
    equal: str
    shared: bool = False


JOBS = {
    job.name: job
    for job in (
        FaultJob(
            *("train", 5, 50, 3, "--resume"),
            kept="complete checkpoints",
            equal="the weights and the optimizer's state, bit for bit, and every line of metrics.jsonl but for times",
        ),
        FaultJob(
            *("select score", 10, 90, 5, "the same command"),
            kept="finished parts",
            equal="every row of the score table, each once",
            shared=True,
        ),
        FaultJob(
            *("locate", 5, 60, 4, "--resume"),
            kept="finished parts of pairs",
            equal="map.json, byte for byte, and every row of pairs.parquet, each once",
        ),
        FaultJob(
            *("measure", 2, 10, 3, "--resume"),
            kept="finished metrics",
            equal="metrics.json but for seconds",
        ),
        FaultJob(
            *("negatives", 2, 10, 2, "--resume"),
            kept="finished parts of rows",
            equal="the preference rows, byte for byte",
        ),
        FaultJob(
            *("evaluate", 2, 10, 1, "--overwrite"),
            kept="nothing; it begins again",
            equal="evaluation.json and the answers, byte for byte",
        ),
        FaultJob(
            *("arms", 1, 10, 1, "the same command"),
            kept="finished runs, and of others complete checkpoints",
            equal="the weights of every run, bit for bit, and arms.json but for seconds",
        ),
        FaultJob(
            *("select filter", 2, 10, 1, "the same command"),
            kept="nothing; a subset appears whole or not at all",
            equal="the rows, byte for byte",
        ),
        FaultJob(
            *("merge", 1, 10, 1, "the same command"),
            kept="nothing; a model appears whole or not at all",
            equal="the merged weights, bit for bit",
        ),
    )
}
KILLED = ("train", "select score", "locate")
"""The long jobs, over which kills are counted."""
OTHERS = {"default": 1, "slow": 3}
"""How often a second process meets each job."""
