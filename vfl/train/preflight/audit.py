"""What the loss is taken on, decoded: the answers, all of the answers, and nothing but the answers."""

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from vfl.errors import InputError

PROMPT_TAIL = 24  # tokens of the prompt that are shown before the first answer
CONTEXT = 60  # characters of a text that an error quotes


class AuditRow(BaseModel):
    """One row of a batch: `answers` holds one text for each stretch of tokens in the loss (one a turn)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    where: str
    answers: tuple[str, ...]
    prompt_tail: str
    loss_tokens: int
    image_tokens: int
    tokens: int  # padding left out
    unclosed: int  # answers without an end token in the loss: from these the model does not learn to stop


class LossAudit(BaseModel):
    """The rows of a batch that passed the audit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: tuple[AuditRow, ...]

    @property
    def loss_tokens(self) -> int:
        return sum(row.loss_tokens for row in self.rows)

    @property
    def image_tokens(self) -> int:
        return sum(row.image_tokens for row in self.rows)

    @property
    def tokens(self) -> int:
        return sum(row.tokens for row in self.rows)

    @property
    def unclosed(self) -> int:
        return sum(row.unclosed for row in self.rows)


def audit_loss(
    tokenizer: Any,
    input_ids: torch.Tensor,
    loss_mask: torch.Tensor,
    *,
    image_token_ids: Collection[int],
    end_ids: Collection[int],
    expected: Sequence[Sequence[str]],
    attention_mask: torch.Tensor | None = None,
    where: Sequence[str] | None = None,
) -> LossAudit:
    """Decode the tokens in the loss of a batch and compare them with the answers.

    White space is left out of the comparison, and so are end tokens; any other special token, any image placeholder
    and any word of the prompt is an error.

    Args:
        input_ids: (B, T) token ids.
        loss_mask: (B, T), True where a token is in the loss (`labels != -100`).
        image_token_ids: placeholders whose positions hold vision tokens.
        end_ids: tokens that close an answer (end of turn, end of text).
        expected: for each row its answers, one a turn.
        attention_mask: (B, T), nonzero at what is not padding; None if nothing is.
        where: what a person calls each row, such as "train.json row 17".

    Raises:
        InputError: names the row and what is wrong in its loss.
    """
    batch, length = input_ids.shape
    names = list(where) if where is not None else [f"row {n} of the batch" for n in range(batch)]
    present = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    assert loss_mask.shape == present.shape == (batch, length), (loss_mask.shape, present.shape, input_ids.shape)
    assert len(names) == len(expected) == batch, (len(names), len(expected), batch)
    columns = zip(names, input_ids.tolist(), loss_mask.bool().tolist(), present.bool().tolist(), expected, strict=True)
    return LossAudit(rows=tuple(_row(tokenizer, *row, set(image_token_ids), set(end_ids)) for row in columns))


def visible(text: str) -> str:
    """A text on one line without control characters, which could drive a terminal: "a\\nb" -> "a⏎b"."""
    lines = text.replace("\r\n", "\n").replace("\n", "⏎")
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in lines)


def _row(
    tokenizer: Any,
    where: str,
    ids: list[int],
    in_loss: list[bool],
    present: list[bool],
    answers: Sequence[str],
    image_ids: set[int],
    end_ids: set[int],
) -> AuditRow:
    chosen = [n for n, taken in enumerate(in_loss) if taken]
    if not chosen:
        raise InputError(
            f"{where}: no token is in the loss, so nothing would be learned from it. Expected the tokens of "
            f"{_quoted(' '.join(answers))}; check the chat template and that the last turn is the assistant's."
        )
    if padded := sum(not present[n] for n in chosen):
        raise InputError(f"{where}: {padded} of {len(chosen)} tokens in the loss are padding; the loss mask is wrong.")
    if images := sum(ids[n] in image_ids for n in chosen):
        raise InputError(
            f"{where}: {images} of {len(chosen)} tokens in the loss are image placeholders. Only answers may be in the "
            "loss; give prompt and completion apart, or take the loss on the assistant's turns alone."
        )
    runs = [[ids[n] for n in run] for run in _neighbours(chosen)]
    decoded = tuple(tokenizer.decode([token for token in run if token not in end_ids]) for run in runs)
    # Expected texts go through the tokenizer too: what it cannot write (case, unknown signs) is no difference.
    wanted = "".join(_canonical(tokenizer, answer, end_ids) for answer in answers)
    learnt = "".join(map(_squeezed, decoded))
    if learnt != wanted:
        raise InputError(
            f"{where}: the loss is on other tokens than the answers. Expected {_quoted(wanted)}, decoded from the loss "
            f"{_quoted(learnt)} (first difference after {_common(learnt, wanted)} signs; white space is left out). "
            "Prompt tokens in the loss come from a chat template whose answers cannot be told from the prompt."
        )
    return AuditRow(
        where=where,
        answers=tuple(text.strip() for text in decoded),
        prompt_tail=tail(tokenizer, [ids[n] for n in range(chosen[0]) if present[n]], image_ids),
        loss_tokens=len(chosen),
        image_tokens=sum(ids[n] in image_ids for n in range(len(ids)) if present[n]),
        tokens=sum(present),
        unclosed=sum(not end_ids.intersection(run) for run in runs),
    )


def _neighbours(positions: list[int]) -> list[list[int]]:
    """[3, 4, 9] -> [[3, 4], [9]]."""
    numbered = enumerate(positions)
    return [[position for _, position in run] for _, run in groupby(numbered, lambda item: item[1] - item[0])]


def tail(tokenizer: Any, prompt: list[int], image_ids: set[int]) -> str:
    """The end of the prompt as text, a run of placeholders as its number."""
    runs = [(image, list(run)) for image, run in groupby(prompt, lambda token: token in image_ids)]
    pieces: list[str] = []
    left = PROMPT_TAIL
    for image, run in reversed(runs):
        if left <= 0:
            break
        pieces.insert(0, f"[{len(run)} image tokens]" if image else tokenizer.decode(run[-left:]))
        left -= 1 if image else len(run)
    return "".join(pieces)


def _canonical(tokenizer: Any, answer: str, end_ids: set[int]) -> str:
    ids = tokenizer.encode(answer, add_special_tokens=False)
    return _squeezed(tokenizer.decode([token for token in ids if token not in end_ids]))


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _common(a: str, b: str) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _quoted(text: str) -> str:
    text = visible(text)
    return f"“{text[:CONTEXT]}…”" if len(text) > CONTEXT else f"“{text}”"
