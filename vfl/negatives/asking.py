"""Rows asked with the model blind at some layers, and why a row gives a preference pair or none.

The chosen answer is the row's own, the rejected one what the blind model says. A row is kept where the two differ under
the row's kind of match. That the chosen answer is right is the data's word; with `only_answered` it is the model's too:
seeing the image, it says the same, so that blindness alone made the other answer.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from vfl.data import BadRow, Sample
from vfl.data.turns import MARK
from vfl.engine.memory import in_parts
from vfl.engine.untouched import untouched
from vfl.errors import InputError
from vfl.evaluate.answers import ids_of, text_of
from vfl.evaluate.batches import Batches, ItemBatch, encode_batch
from vfl.evaluate.items import EvalItem, items_of_data
from vfl.evaluate.padding import pads_left
from vfl.models.vlm import VLM
from vfl.negatives.config import NegativesConfig
from vfl.probes.asking import is_cut

Outcome = Literal["kept", "same answer", "not answered", "no image", "empty", "unfinished", "control mark", "bad row"]
WHY: dict[Outcome, str] = {
    "kept": "the blind answer differs from the chosen one",
    "same answer": "the blind answer is the chosen one",
    "not answered": "the model does not answer it rightly, seeing the image (only_answered)",
    "no image": "the row has no image to be blind to",
    "empty": "the blind model said nothing",
    "unfinished": "the blind answer came to no end (max_new_tokens)",
    "control mark": "the blind answer holds a mark that would be read as a signal, such as <image>",
    "bad row": "it can't be used (on_bad_row: skip)",
}
MEDIA_MARKS = (MARK, "<video>", "<audio>")


@dataclass(frozen=True)
class Asked:
    """What became of a row: the blind answer where it was asked, and the reason where the row can't be used."""

    uid: str
    outcome: Outcome
    answer: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Said:
    """An answer, and whether the model ended it."""

    text: str
    ended: bool


class Asker:
    """Asks rows of a configuration, blind at `layers`."""

    def __init__(self, vlm: VLM, config: NegativesConfig, layers: Collection[int]) -> None:
        self.vlm, self.config, self.layers = vlm, config, layers
        with untouched(vlm):
            self.pad = config.batch_size > 1 and pads_left(vlm)
        special = [token.content for token in vlm.tokenizer.added_tokens_decoder.values() if token.special]
        self.marks = sorted({*MEDIA_MARKS, *special} - {""})

    def ask(self, rows: Sequence[Sample | BadRow], on_rows: Callable[[int], None]) -> list[Asked]:
        """What becomes of each row, in order.

        Args:
            rows: of the data.
            on_rows: called with numbers of rows as they are done.

        Raises:
            InputError: for a row that can't be used, unless those are to be skipped.
        """
        asked: list[Asked | None] = []
        items: dict[int, EvalItem] = {}
        for place, row in enumerate(rows):
            try:
                item = self._item(row)
            except InputError as error:
                if self.config.on_bad_row == "error":
                    raise InputError(
                        f"{error}. Mend the row, or leave such rows out with on_bad_row: skip (--on-bad-row skip)."
                    ) from error
                asked.append(Asked(row.uid, "bad row", reason=str(error)))
                continue
            if item is not None:
                items[place] = item
            asked.append(None if item is not None else Asked(row.uid, "no image"))
        on_rows(len(rows) - len(items))
        if self.config.only_answered:
            seeing = self._said(list(items.values()), ())
            wrong = [place for place, item in items.items() if not item.correct(seeing[item.id].text)]
            for place in wrong:
                asked[place] = Asked(rows[place].uid, "not answered")
                del items[place]
            on_rows(len(wrong))
        blind = self._said(list(items.values()), self.layers, on_rows)
        for place, item in items.items():
            said = blind[item.id]
            asked[place] = Asked(rows[place].uid, self._outcome(item, said), said.text)
        done = [outcome for outcome in asked if outcome is not None]
        assert len(done) == len(rows)
        return done

    def _item(self, row: Sample | BadRow) -> EvalItem | None:
        """The row's last answer as a question, or None without an image."""
        if isinstance(row, BadRow):
            raise InputError(f"{row.where} ({row.uid}): {row.reason}")
        (item,) = items_of_data([row], match=self.config.match, max_new_tokens=self.config.max_new_tokens)
        for image in row.images:
            try:
                image.check()  # now, and not when half of the answers are there
            except InputError as error:
                raise InputError(f"{row.where} ({row.uid}): {error}") from error
        return item if row.images else None

    def _said(
        self, items: Sequence[EvalItem], hide: Collection[int], on_rows: Callable[[int], None] = lambda count: None
    ) -> dict[str, Said]:
        """The greedy answer to each item, by its id, with the image hidden from the text at some layers."""
        said: dict[str, Said] = {}
        with untouched(self.vlm):
            for batch in Batches(self.vlm, items, self.config.batch_size, pad=self.pad, keep_bytes=0):

                def ask(some: Sequence[EvalItem], batch: ItemBatch = batch) -> list[tuple[str, Said]]:
                    part = batch if len(some) == len(batch.items) else encode_batch(self.vlm, some, pad=self.pad)
                    answers = ids_of(self.vlm, part, hide)
                    return [
                        (item.id, Said(text_of(self.vlm, ids), not is_cut(ids, item.max_new_tokens)))
                        for item, ids in zip(part.items, answers, strict=True)
                    ]

                said.update(in_parts(batch.items, len(batch.items), ask, "questions")[0])
                on_rows(len(batch.items))
        return said

    def _outcome(self, item: EvalItem, said: Said) -> Outcome:
        if item.correct(said.text):
            return "same answer"
        if not said.text:
            return "empty"
        if not said.ended:
            return "unfinished"
        return "control mark" if any(mark in said.text for mark in self.marks) else "kept"
