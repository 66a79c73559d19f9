"""A model's answers to items: batched greedy generation, judged item by item.

answered = answer(vlm, items_of_probes(vlm, pairs))
exam = Exam(vlm, items)      # encodes once; exam.answer() as often as wanted, such as during training
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from vfl.engine.memory import is_out_of_memory, release
from vfl.engine.untouched import greedy, untouched
from vfl.evaluate.batches import Batch, Batches, Shown, encode_batch
from vfl.evaluate.items import EvalItem, check_items
from vfl.evaluate.padding import pads_left
from vfl.models.vlm import VLM
from vfl.probes.asking import read_answer

logger = logging.getLogger(__name__)
KEPT_BYTES = 1 << 30


@dataclass(frozen=True)
class Answered:
    """One item's answer.

    Attributes:
        id, group, expected: the item's.
        text: the answer; boxes and points in pixels of the file.
        correct: whether it is right.
        key: hash of what was asked (text, pixels, right answer), which a comparison of two runs checks.
    """

    id: str
    group: str
    text: str
    correct: bool
    expected: str
    key: str


class Exam:
    """Items of one model, to be answered as often as wanted.

    Args:
        vlm: the model; it may be in training, and is left as it was.
        items: what to ask.
        batch: most rows in a batch; an out-of-memory error halves one and says so.
        keep_bytes: memory (of the CPU) for encoded batches, which spares decoding and processing at the next answer;
            batches beyond it are encoded anew each time.

    Raises:
        InputError: for no items or repeated ids.
    """

    def __init__(self, vlm: VLM, items: Sequence[EvalItem], *, batch: int = 16, keep_bytes: int = KEPT_BYTES) -> None:
        check_items(items)
        self.vlm, self.items = vlm, list(items)
        with untouched(vlm):
            pad = batch > 1 and len(items) > 1 and pads_left(vlm)
        self.batches = Batches(vlm, self.items, batch, pad=pad, keep_bytes=keep_bytes)

    def answer(self, *, progress: bool = False) -> list[Answered]:
        """Ask everything; answers come in the order of the items.

        Raises:
            InputError: names the item whose image can't be read.
        """
        found: dict[str, Answered] = {}
        with untouched(self.vlm):
            for batch in tqdm(self.batches, "answers", unit="batch", disable=not progress, leave=False):
                found |= {one.id: one for one in _answer(self.vlm, batch)}
        return [found[item.id] for item in self.items]


def answer(vlm: VLM, items: Sequence[EvalItem], batch: int = 16, *, progress: bool = False) -> list[Answered]:
    """Ask items once: greedy answers, equal to those of `vfl.sweep` with `Plan.own()`, in the order of the items.

    Raises:
        InputError: for no items, repeated ids, or an image that can't be read.
    """
    return Exam(vlm, items, batch=batch, keep_bytes=0).answer(progress=progress)


def _answer(vlm: VLM, batch: Batch) -> list[Answered]:
    try:
        texts = generate(vlm, batch)
    except RuntimeError as error:
        if not is_out_of_memory(error) or len(batch.items) == 1:
            raise
        texts = []
    if not texts:  # Outside of `except`, or the traceback would keep the failed batch's tensors alive.
        release()
        half = len(batch.items) // 2
        logger.warning("out of memory with %d questions in a batch; asking them in two halves", len(batch.items))
        halves = (batch.items[:half], batch.items[half:])
        return [one for items in halves for one in _answer(vlm, encode_batch(vlm, items))]
    return [
        _judged(vlm, item, shown, key, text)
        for item, shown, key, text in zip(batch.items, batch.shown, batch.keys, texts, strict=True)
    ]


def generate(vlm: VLM, batch: Batch) -> list[str]:
    """The greedy answer of each row, up to its end token or the items' bound."""
    inputs = {name: value.to(vlm.device) for name, value in batch.inputs.items()}
    length = inputs["input_ids"].shape[1]
    limit = max(item.max_new_tokens for item in batch.items)
    with greedy(vlm):
        output: torch.Tensor = vlm.model.generate(**inputs, max_new_tokens=limit, do_sample=False, use_cache=True)
    ends = vlm.end_ids()
    return [
        vlm.tokenizer.decode(_until_end(row, ends), skip_special_tokens=True).strip()
        for row in output[:, length:].tolist()
    ]


def _until_end(ids: list[int], ends: set[int]) -> list[int]:
    return ids[: next((place for place, token in enumerate(ids) if token in ends), len(ids))]


def _judged(vlm: VLM, item: EvalItem, shown: Shown, key: str, text: str) -> Answered:
    if item.pair is not None:
        text = read_answer(vlm, item.pair, text, shown)
    return Answered(item.id, item.group, text, item.correct(text), item.expected, key)
