"""How long a localisation will take and what memory it needs, said after its first kept pair."""

from vfl.engine.memory import peak_memory
from vfl.io.durations import duration
from vfl.locate.config import LocateConfig
from vfl.locate.gaps import gap_blocks
from vfl.locate.layer_rule import end_blocks
from vfl.models.pixel_limits import limits_of
from vfl.models.vlm import VLM
from vfl.probes.style import STYLES

LONG = 3600.0  # seconds from which on it is said how to shorten a run


class Forecast:
    """Says once, after the first kept pair, how long the rest takes and what memory was needed.

    Args:
        vlm: the model.
        config: of the run.
        pairs: that lack the blocks of layers that every pair is asked with.
        blocks: how many these are.
        processes: that share the pairs.
    """

    def __init__(self, vlm: VLM, config: LocateConfig, *, pairs: int, blocks: int, processes: int = 1) -> None:
        self.vlm, self.config, self.left, self.blocks, self.processes = vlm, config, pairs, blocks, processes
        self.said = False

    def after(self, seconds: float, *, pairs: int = 1, kept: int, blocks: int | None = None) -> str | None:
        """The line to say after pairs of one group were asked with these blocks, once; `kept` of them were.

        A screen leaves only so many `blocks`.
        """
        self.left -= pairs * self.processes  # the others have asked about as many meanwhile
        if self.said or not kept or self.left < 1:
            return None
        self.said = True
        seconds /= kept  # those that weren't kept took little
        asked = self.blocks if blocks is None else blocks
        further = self.blocks - asked
        if self.config.mode == "auto":
            further += len(end_blocks(self.vlm.num_layers)) + sum(map(len, gap_blocks(self.vlm.num_layers)))
        shortest, longest = seconds_left(seconds, self.left / self.processes, asked, further)
        least, most = map(duration, (shortest, longest))
        # What lies between named layers is swapped in a second visit, which most functions have.
        needs = " if every function needs all layers" if asked < self.blocks else " with the wider blocks that follow"
        narrow = " for single layers and windows" if asked == self.blocks else ""
        more = f"{narrow}, up to {most}{needs}" if most != least else ""
        less = "" if self.config.unfiltered else "; those answered wrongly take less"
        shared = f" by {self.processes} processes" if self.processes > 1 else ""
        of = "the first kept pair" if pairs == 1 else "each kept pair of the first group"
        line = (
            f"{self.left:,} more pair{'s' if self.left > 1 else ''}{shared}: about {least}{more} "
            f"({seconds:.2g} s for {of}{less}). Memory so far: {peak_memory(self.vlm.device)}."
        )
        return line if longest < LONG else f"{line} To shorten it: {', '.join(self._remedies())}."

    def _remedies(self) -> list[str]:
        generated = self.config.probes is None or self.config.probes in STYLES
        sizes = ["--size"] if generated else []
        sizes += ["--max-pixels"] if limits_of(self.vlm.processor) else []
        return [
            "fewer --pairs" if generated else "fewer pairs in the suite",
            *([] if self.config.mode == "single" else ["--mode single (a third of the work or less)"]),
            "a lower --max-new-tokens if answers ramble",
            f"smaller pictures ({' or '.join(sizes)})" if sizes else "smaller pictures",
            *(["--group 3 (pairs share their pictures)"] if generated and self.config.group is None else []),
        ]


def seconds_left(seconds: float, pairs: float, blocks: int, further: int) -> tuple[float, float]:
    """Seconds that are left after one visit: with what every pair is asked, and at most.

    A visit takes as long as it has blocks of layers; further ones may come for all pairs, this one too.

    Args:
        seconds: that the visit of a kept pair took.
        pairs: that are left to visit; of several processes, for each.
        blocks: that each is asked with.
        further: blocks that follow for functions that need them.
    """
    least = seconds * pairs
    return least, least + seconds * (pairs + 1) * further / blocks
