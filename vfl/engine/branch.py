"""Rows of a sweep after their prompt: each is scored by given answers and goes on with tokens of its own.

Shapes: R rows, n tokens of an answer, H key-value heads, m tokens of the rows before, D head dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from vfl.engine.decode import greedy_answers
from vfl.engine.plan import Plan
from vfl.engine.rows import Context, KeysValues, Tokens, cut_tokens, run_rows
from vfl.models.vlm import VLM


@dataclass(frozen=True)
class Begun:
    """Rows that say a given answer up to its last token, and so far have not been asked for more.

    Attributes:
        rows: by number.
        said: (rows, n - 1) tokens.
        logits: (rows, vocabulary) that predict the next token.
        past: per layer keys and values (rows, H, m + n - 1, D).
    """

    rows: list[int]
    said: torch.Tensor
    logits: torch.Tensor
    past: list[KeysValues]


@dataclass(frozen=True)
class Branch:
    """Rows after their prompt.

    Attributes:
        vlm: the model.
        plans: R plans.
        context: what comes before the rows' own tokens.
        past: per layer keys and values (R, H, m, D) of the rows' own tokens.
        following: tokens after the prompt.
    """

    vlm: VLM
    plans: list[Plan]
    context: Context
    past: list[KeysValues]
    following: Tokens | None

    def take(self, rows: list[int]) -> "Branch":
        """Some of the rows."""
        owners = self.context.owners
        return replace(
            self,
            plans=[self.plans[row] for row in rows],
            context=self.context if owners is None else replace(self.context, owners=owners[rows]),
            past=_of_rows(self.past, rows),
        )

    def score_rows(self, rows: list[int], ids: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, Begun | None]:
        """(R,) as `score` for some rows, NaN for the others."""
        if len(rows) == len(self.plans):
            return self.score(ids, logits)
        scores = torch.full_like(logits[:, 0], torch.nan)
        if not rows:
            return scores, None
        scores[rows], begun = self.take(rows).score(ids, logits[rows])
        return scores, None if begun is None else replace(begun, rows=[rows[row] for row in begun.rows])

    def score(self, ids: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, Begun | None]:
        """(R,) mean log-probability per token of answers (1 or R, n); `logits` (R, vocabulary) predict the first.

        Also the rows that begin to say them.
        """
        ids = ids.expand(len(self.plans), -1)
        total = _log_softmax_at(logits, ids[:, 0])
        said = ids[:, :-1]
        if not said.shape[1]:
            return total, None
        output, past = self._step(said, 0, self.past)
        agrees = ~torch.isin(said, torch.tensor(sorted(self.vlm.end_ids()), device=said.device)).any(1)
        for position in range(said.shape[1]):  # one position at a time: all logits at once would be large
            agrees &= logits.argmax(-1).to(said.device) == said[:, position]
            logits = wide(self.vlm.logits(output[:, position]))
            total = total + _log_softmax_at(logits, ids[:, position + 1])
        rows = agrees.nonzero().flatten().tolist()
        begun = Begun(rows, said[rows], logits[rows], _of_rows(past, rows)) if rows else None
        return total / ids.shape[1], begun

    def generate_all(self, logits: torch.Tensor, begun: Sequence[Begun], max_new_tokens: int) -> list[list[int]]:
        """Greedy answers of all rows, without the end token.

        Args:
            logits: (R, vocabulary) that predict the first tokens.
            begun: answers that some rows have begun.
            max_new_tokens: of an answer.
        """
        answers: dict[int, list[int]] = {}
        for start in begun:
            number = start.said.shape[1]
            places = [place for place, row in enumerate(start.rows) if row not in answers]
            if not places or number >= max_new_tokens:
                continue
            rows = [start.rows[place] for place in places]
            going = replace(self.take(rows), past=_of_rows(start.past, places))
            ends = going.generate(start.logits[places], max_new_tokens, number)
            beginnings = start.said[places].tolist()
            answers |= {row: said + end for row, said, end in zip(rows, beginnings, ends, strict=True)}
        left = [row for row in range(len(self.plans)) if row not in answers]
        if left:
            branch = self if len(left) == len(self.plans) else self.take(left)
            answers |= zip(left, branch.generate(logits[left], max_new_tokens), strict=True)
        return [answers[row] for row in range(len(self.plans))]

    def generate(self, logits: torch.Tensor, max_new_tokens: int, said: int = 0) -> list[list[int]]:
        """What follows in greedy answers of all rows after so many tokens that are in `past`, without the end token."""
        branch, past = self, self.past

        def step(chosen: torch.Tensor, number: int) -> torch.Tensor:
            nonlocal past
            output, past = branch._step(chosen[:, None], said + number, past)
            return wide(self.vlm.logits(output[:, -1]))

        def narrow(rows: list[int]) -> None:
            nonlocal branch, past
            branch = replace(branch, past=past).take(rows)
            past = branch.past

        return greedy_answers(logits, step, max_new_tokens - said, self.vlm.end_ids(), narrow)

    def _step(self, ids: torch.Tensor, first: int, past: list[KeysValues]) -> tuple[torch.Tensor, list[KeysValues]]:
        assert self.following is not None
        tokens = cut_tokens(self.following, first, first + ids.shape[1])
        return run_rows(self.vlm, self.plans, tokens, self.context, hidden=self.vlm.embed(ids), past=past)


def _of_rows(past: Sequence[KeysValues], rows: list[int]) -> list[KeysValues]:
    return [(keys[rows], values[rows]) for keys, values in past]


def _log_softmax_at(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """(R,) log-probabilities of a token each."""
    return torch.log_softmax(logits, dim=-1).gather(-1, tokens[:, None].to(logits.device))[:, 0]


def wide(logits: torch.Tensor) -> torch.Tensor:
    """Logits at least in float32."""
    return logits if logits.dtype == torch.float64 else logits.float()
