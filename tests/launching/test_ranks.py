"""Processes of one run: work is dealt once, an error of one ends all, and none waits for one that is gone."""

import json
import signal

import trained
import warm

from vfl.launching.ranks import ALONE

RANK = """
import json, os, signal, sys
from vfl.errors import InputError
from vfl.launching.ranks import LostRankError, join

ranks, facts = join(), {}
facts["first"] = ranks.first(lambda: ranks.rank)
facts["dealt"] = ranks.each(lambda: [item for _, item in ranks.dealt("abcdefgh")])
try:
    with ranks.together():
        if ranks.rank:
            raise InputError(f"said by {ranks.rank}")
except InputError as error:
    facts["error"] = str(error)
facts["halted"] = ranks.each(lambda: list(ranks.dealt("abcdefgh")))
print(json.dumps(facts), flush=True)
try:
    with ranks.together():
        if ranks.rank == 2:
            os.kill(os.getpid(), signal.SIGKILL)
except LostRankError as error:
    sys.exit(str(error))
"""


def test_ranks_share_work_and_errors_and_see_that_one_is_gone():
    processes = warm.started_ranks(["-c", RANK], trained.environment(), number=3)
    done = [process.finish(600) for process in processes]
    facts = [json.loads(rank.stdout) for rank in done]
    assert facts[0] == facts[1] == facts[2]
    assert facts[0]["first"] == 0
    assert sorted(item for items in facts[0]["dealt"] for item in items) == list("abcdefgh")
    assert facts[0]["error"] == "said by 1", "of two the lowest rank's, in all"
    assert facts[0]["halted"] == [[], [], []], "no more work comes after an error"
    assert [rank.returncode for rank in done] == [1, 1, -signal.SIGKILL]
    assert all("Another process of this run ended" in rank.stderr for rank in done[:2])


def test_one_process_needs_no_group():
    assert ALONE.first(lambda: "work") == "work"
    assert ALONE.each(lambda: list(ALONE.dealt("ab"))) == [[(0, "a"), (1, "b")]]
