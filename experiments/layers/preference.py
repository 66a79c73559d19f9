"""Preference pairs in the fast loop: what `method: dpo` does in `vfl train`, alone or with the loss of SFT added.

    sigmoid      mean over pairs of -log sigmoid(beta (chosen - rejected)), each the answer's log-probability over what
                 the model gave it before training (arXiv 2305.18290)
    sigmoid_sft  the same plus the mean loss over the chosen answers' tokens: TRL's `loss_type: [sigmoid, sft]`

Both answers follow one copy of their question, neither seeing the other: a pair costs little more than a row of SFT. A
test compares the losses of both kinds with those of `vfl train`.

Legend: B pairs, T tokens of the longest, A answer tokens of a pair, N of all pairs, W the model's width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch.nn.functional import cross_entropy, logsigmoid
from torch.nn.utils.rnn import pad_sequence

from experiments.layers.loop import ROWS_AT_ONCE, Row, encode
from vfl.data import read
from vfl.models.vlm import VLM
from vfl.train.rows.table import write_rows

BETA = 0.1  # TRL's default
PairLoss = Literal["sigmoid", "sigmoid_sft"]


@dataclass(frozen=True)
class Pair:
    """One question with a chosen and a rejected answer behind it, as they enter the first decoder layer.

    Attributes:
        states: (T, W) question, chosen answer, rejected answer.
        positions: (T, 3) rotary positions; both answers begin at the same one.
        sees: (T, T) which keys each query sees.
        tokens: (A,) the answers' tokens.
        places: (A,) where each of them is predicted.
        rejected: (A,) which of them are the rejected answer's.
        reference: log-probability of the chosen answer less that of the rejected one, before training.
    """

    states: torch.Tensor
    positions: torch.Tensor
    sees: torch.Tensor
    tokens: torch.Tensor
    places: torch.Tensor
    rejected: torch.Tensor
    reference: float = 0.0


def pairs_of(vlm: VLM, folder: Path) -> list[Pair]:
    """The preference rows of a folder as pairs; `vlm` is the model before training."""
    table = write_rows(read(folder), folder / "rows.arrow")  # type: ignore[arg-type]
    rows = [table[n] for n in range(len(table))]
    pairs = list(map(joined, encode(vlm, rows), encode(vlm, rows, rejected=True)))
    done = []
    with torch.no_grad():
        for start in range(0, len(pairs), ROWS_AT_ONCE):
            some = pairs[start : start + ROWS_AT_ONCE]
            chosen, rejected, _ = answers(vlm, some)
            references = (chosen - rejected).tolist()
            done += [replace(pair, reference=reference) for pair, reference in zip(some, references, strict=True)]
    return done


def joined(chosen: Row, rejected: Row) -> Pair:
    """Two answers behind one copy of their question."""
    begins, ends = int((chosen.labels >= 0).nonzero()[0]), len(chosen.labels)
    length = ends + len(rejected.labels) - begins
    sees = torch.ones(length, length, dtype=torch.bool).tril()
    sees[ends:, begins:ends] = False
    labels = torch.cat([chosen.labels, rejected.labels[begins:]])
    where = (labels >= 0).nonzero()[:, 0]
    return Pair(
        states=torch.cat([chosen.states, rejected.states[begins:]]),
        positions=torch.cat([chosen.positions, rejected.positions[begins:]]),
        sees=sees,
        tokens=labels[where],
        places=torch.where(where == ends, begins, where) - 1,
        rejected=where >= ends,
    )


def answers(vlm: VLM, pairs: Sequence[Pair]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(B,) log-probabilities of the chosen and the rejected answers; the mean loss over the chosen ones' tokens."""
    states = pad_sequence([pair.states for pair in pairs], batch_first=True)
    positions = pad_sequence([pair.positions for pair in pairs], batch_first=True).permute(2, 0, 1)
    length = states.shape[1]
    sees = torch.ones(len(pairs), 1, length, length, dtype=torch.bool).tril()
    for n, pair in enumerate(pairs):
        sees[n, 0, : len(pair.sees), : len(pair.sees)] = pair.sees
    mask = torch.zeros(sees.shape, dtype=states.dtype).masked_fill(~sees, torch.finfo(states.dtype).min)
    hidden = vlm.parts.decoder(
        inputs_embeds=states, position_ids=positions, attention_mask=mask, use_cache=False
    ).last_hidden_state
    pair_of = torch.cat([torch.full_like(pair.tokens, n) for n, pair in enumerate(pairs)])
    tokens, places, rejected = (
        torch.cat([getattr(pair, name) for pair in pairs]) for name in ("tokens", "places", "rejected")
    )
    losses = cross_entropy(vlm.parts.head(hidden[pair_of, places]).float(), tokens, reduction="none")
    sums = losses.new_zeros(2 * len(pairs)).index_add(0, pair_of + len(pairs) * rejected, -losses)
    return sums[: len(pairs)], sums[len(pairs) :], losses[~rejected].mean()


def pair_loss(kind: PairLoss) -> Callable[[VLM, Sequence[Pair]], torch.Tensor]:
    """The loss of some pairs, for `fit`."""
    return partial(_loss, sft=1.0 if kind == "sigmoid_sft" else 0.0)


def _loss(vlm: VLM, pairs: Sequence[Pair], sft: float) -> torch.Tensor:
    chosen, rejected, of_chosen = answers(vlm, pairs)
    reference = torch.tensor([pair.reference for pair in pairs])
    return -logsigmoid(BETA * (chosen - rejected - reference)).mean() + sft * of_chosen
