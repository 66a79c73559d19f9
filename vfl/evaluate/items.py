"""What an evaluation asks: one question with its images and the answer that counts as right.

Items come from probe pairs (`items_of_probes`) or from the rows of a data set (`items_of_data`). Images stay closed
until they are needed.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from PIL import Image

from vfl.errors import InputError
from vfl.evaluate.right_answers import AnswerKind, RightAnswer, RowMatch, right_answer
from vfl.models.encode import Message
from vfl.models.system_turn import check_system, with_system
from vfl.models.vlm import VLM
from vfl.probes.asking import answer_limit, question_of, token_limit
from vfl.probes.pair import Pair, Which

LONGEST = 256  # tokens of an answer, unless the caller says otherwise


@dataclass(frozen=True)
class EvalItem:
    """One question.

    Attributes:
        id: unique among the items of an evaluation; the same in every evaluation of the same source.
        group: what its accuracy is counted under: a probe's function, a data set's name or column value.
        messages: the turns before the answer; image places hold no images.
        images: opens each image, in the order of the places.
        expected: the right answer.
        match: how answers are compared; "exact" is equality but for the spaces around.
        max_new_tokens: bound on the generated answer.
        pair: the probe pair that this is one image of, or None.
        which: which image of the pair.
    """

    id: str
    group: str
    messages: tuple[Message, ...]
    images: tuple[Callable[[], Image.Image], ...]
    expected: str
    match: AnswerKind
    max_new_tokens: int
    pair: Pair | None = None
    which: Which = "image"

    def correct(self, answer: str, image_size: tuple[int, int] | None = None) -> bool:
        """Whether an answer (boxes and points in pixels of the file) is right.

        Args:
            image_size: (width, height) of a row's image, where its right answer is a point.
        """
        if self.pair is not None:
            return self.pair.correct(answer, self.which)
        return RightAnswer(self.expected, self.match).correct(answer, image_size)


class Row(Protocol):
    """What is read of a data set's row (`vfl.data.Sample`)."""

    @property
    def uid(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def messages(self) -> Sequence[Message]: ...
    @property
    def images(self) -> Sequence[Any]: ...
    @property
    def columns(self) -> dict[str, Any]: ...


def items_of_probes(
    vlm: VLM, pairs: Iterable[Pair], which: Sequence[Which] = ("image",), *, max_new_tokens: int | None = None
) -> list[EvalItem]:
    """An item for each pair's target image, or for each of the images named in `which`; the group is the function.

    What several pairs of one scene ask of the same image is one item.
    """
    items, asked = [], set()
    for pair in pairs:
        content = ({"type": vlm.medium.name}, {"type": "text", "text": question_of(vlm, pair)})
        for name in which:
            question = (pair.path(name), pair.question, pair.function) if name in pair.images else None
            if question is None or (pair.group is not None and question in asked):
                continue
            asked.add(question)
            items.append(
                EvalItem(
                    id=pair.id if name == "image" else f"{pair.id}/{name}",
                    group=pair.function,
                    messages=({"role": "user", "content": list(content)},),
                    images=(partial(vlm.medium.open, pair.path(name)),),
                    expected=pair.source_answer if name == "source_image" else pair.answer,
                    match=pair.match,
                    max_new_tokens=token_limit(vlm, pair.limited(max_new_tokens)),
                    pair=pair,
                    which=name,
                )
            )
    return items


def items_of_data(
    samples: Iterable[Row],
    column: str | None = None,
    *,
    name: str = "data",
    match: RowMatch = "auto",
    max_new_tokens: int | None = None,
) -> list[EvalItem]:
    """An item for each row: its last assistant turn is the right answer, the turns before it are asked.

    Args:
        samples: rows, such as the samples of `vfl.data.read`; rows without images are asked as text.
        column: groups are `name/value of this column`; without it all rows are the group `name`.
        name: of the data set; ids are `name/uid`.
        match: how answers are compared, as `right_answer` has it; boxes and points are pixels of the file.
        max_new_tokens: bound on the answers; by default what the kind of answer needs, and room for the right one.

    Raises:
        InputError: names the row, when it does not end with an answer or lacks the column.
    """
    items = []
    for sample in samples:
        try:
            answer = right_answer(sample.messages, match, len(sample.images))
        except InputError as error:
            raise InputError(f"{sample.where}: {error}") from error
        if column is not None and sample.columns.get(column) is None:
            known = ", ".join(sample.columns) or "none"
            raise InputError(f"{sample.where}: the row has no column {column!r} to group by; it has: {known}.")
        items.append(
            EvalItem(
                id=f"{name}/{sample.uid}",
                group=name if column is None else f"{name}/{sample.columns[column]}",
                messages=tuple(sample.messages[:-1]),
                images=tuple(image.open for image in sample.images),
                expected=answer.text,
                match=answer.match,
                max_new_tokens=max_new_tokens or min(LONGEST, answer_limit(answer.match, [answer.text])),
            )
        )
    return items


def under_system(items: list[EvalItem], prompt: str | None, vlm: VLM) -> list[EvalItem]:
    """The items asked under a system prompt, in place of their own; None leaves them as they are.

    Raises:
        InputError: for a model whose chat template has no system role.
    """
    if prompt is None:
        return items
    check_system(vlm.processor, vlm.chat_template)
    return [replace(item, messages=with_system(item.messages, prompt)) for item in items]


def check_items(items: Sequence[EvalItem]) -> None:
    """Raises InputError when there is nothing to ask or an id repeats."""
    if not items:
        raise InputError("There is nothing to evaluate: no probes and no rows were given.")
    repeated = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if repeated:
        raise InputError(f"Ids of items must be unique; {repeated[0]!r} repeats. Give the data sets different names.")
