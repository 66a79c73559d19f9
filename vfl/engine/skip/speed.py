"""What skipping saves: tokens per second and cache memory, beside the plain model on the same prompt."""

import time
from dataclasses import dataclass
from statistics import median

import torch

from vfl.engine.skip.running import cache_bytes, generate
from vfl.engine.skip.skip import Skip
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM


@dataclass(frozen=True)
class Speed:
    """One way of answering.

    Attributes:
        prompt_seconds: vision tower, prompt and first token.
        seconds: the whole answer.
        tokens: new tokens of the answer.
        cache_bytes: keys and values at the end.
    """

    prompt_seconds: float
    seconds: float
    tokens: int
    cache_bytes: int

    @property
    def token_seconds(self) -> float:
        """Time of a token after the first; of short answers it may drown in the clock's noise, even below 0."""
        return (self.seconds - self.prompt_seconds) / (self.tokens - 1)

    @property
    def tokens_per_second(self) -> float:
        """New tokens over all the time, the prompt's included."""
        return self.tokens / self.seconds


def compare_speed(vlm: VLM, encoded: Encoded, skip: Skip, *, tokens: int = 32, repeats: int = 3) -> tuple[Speed, Speed]:
    """The plain model and the skipping one, in turns; medians over repeats, after one that does not count.

    Args:
        vlm: the model.
        encoded: a prompt with one image span.
        skip: where vision tokens run.
        tokens: length of the answers, at least 2; they don't end before.
        repeats: of each.
    """
    ways = (None, skip)
    for way in ways:
        generate(vlm, encoded, way, max_new_tokens=2, exactly=True)
    first: tuple[list[float], list[float]] = ([], [])
    whole: tuple[list[float], list[float]] = ([], [])
    sizes = [0, 0]
    for _ in range(repeats):
        for at, way in enumerate(ways):
            first[at].append(_seconds(vlm, encoded, way, 1)[0])
            seconds, sizes[at] = _seconds(vlm, encoded, way, tokens)
            whole[at].append(seconds)
    plain, skipped = (Speed(median(first[at]), median(whole[at]), tokens, sizes[at]) for at in range(2))
    return plain, skipped


def _seconds(vlm: VLM, encoded: Encoded, skip: Skip | None, tokens: int) -> tuple[float, int]:
    start = _now(vlm)
    _, cache = generate(vlm, encoded, skip, max_new_tokens=tokens, exactly=True)
    return _now(vlm) - start, cache_bytes(cache)


def _now(vlm: VLM) -> float:
    if vlm.device.type == "cuda":
        torch.cuda.synchronize(vlm.device)
    return time.perf_counter()
