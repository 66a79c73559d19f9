"""A model's answers to items: batched greedy generation, judged item by item.

answered = answer(vlm, items_of_probes(vlm, pairs))
evaluator = Evaluator(vlm, items)      # encodes once; evaluator.answer() as often as wanted, such as during training
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vfl.engine.decode import generate
from vfl.engine.hidden_vision import vision_hidden
from vfl.engine.memory import in_parts
from vfl.engine.untouched import untouched
from vfl.evaluate.batches import Batches, ItemBatch, Shown, encode_batch
from vfl.evaluate.items import EvalItem, check_items
from vfl.evaluate.padding import pads_left
from vfl.io.progress import progress_bar
from vfl.models.vlm import VLM
from vfl.probes.asking import in_pixels, is_cut

KEPT_BYTES = 1 << 30


@dataclass(frozen=True)
class Answered:
    """One item's answer.

    Attributes:
        id, group, expected: the item's.
        text: the answer; boxes and points in pixels of the file.
        correct: whether it is right.
        key: hash of what was asked (text, pixels, right answer), which a comparison of two runs checks.
        cut: whether it came to no end within the item's bound, and is judged by what is there.
    """

    id: str
    group: str
    text: str
    correct: bool
    expected: str
    key: str
    cut: bool = False


class Evaluator:
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
        by_id: dict[str, Answered] = {}
        with untouched(self.vlm):
            for batch in progress_bar(self.batches, "answers", unit="batch", disable=not progress, leave=False):
                by_id |= {answered.id: answered for answered in _answer(self.vlm, batch)}
        return [by_id[item.id] for item in self.items]


def answer(vlm: VLM, items: Sequence[EvalItem], batch: int = 16, *, progress: bool = False) -> list[Answered]:
    """Ask items once: greedy answers, equal to those of `vfl.sweep` with `Plan.own()`, in the order of the items.

    Raises:
        InputError: for no items, repeated ids, or an image that can't be read.
    """
    return Evaluator(vlm, items, batch=batch, keep_bytes=0).answer(progress=progress)


def _answer(vlm: VLM, batch: ItemBatch) -> list[Answered]:
    """The answers of a batch, in parts where memory runs out."""

    def ask(items: Sequence[EvalItem]) -> list[Answered]:
        part = batch if len(items) == len(batch.items) else encode_batch(vlm, items)
        return [
            _judged(vlm, item, shown, key, ids)
            for item, shown, key, ids in zip(part.items, part.shown, part.keys, ids_of(vlm, part), strict=True)
        ]

    return in_parts(batch.items, len(batch.items), ask, "questions")[0]


def text_of(vlm: VLM, ids: Sequence[int]) -> str:
    """An answer's tokens as text, without control tokens and the spaces around."""
    text: str = vlm.tokenizer.decode(ids, skip_special_tokens=True)
    return text.strip()


def ids_of(vlm: VLM, batch: ItemBatch, hide: Collection[int] = ()) -> list[list[int]]:
    """Each row's greedy answer as tokens, without the end token; as many as the items' bound where there is none.

    Args:
        hide: layers at which the text sees no vision tokens.
    """
    inputs = {name: value.to(vlm.device) for name, value in batch.inputs.items()}
    with vision_hidden(vlm, inputs["input_ids"], hide):
        return generate(vlm, inputs, max(item.max_new_tokens for item in batch.items))


def _judged(vlm: VLM, item: EvalItem, shown: Shown, key: str, ids: Sequence[int]) -> Answered:
    text, cut = text_of(vlm, ids), is_cut(ids, item.max_new_tokens)
    text = in_pixels(vlm.family, item.match, text, shown)
    right = item.correct(text, shown.image_sizes[0] if shown.image_sizes else None)
    return Answered(item.id, item.group, text, right, item.expected, key, cut)
