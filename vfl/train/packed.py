"""Rows that lie in one sequence without seeing each other: where their tokens are, and the loss over them.

Every row keeps the positions that it has alone (those of an image's rows and columns among them). Transformers tells
rows apart by positions that begin again, where it gets no attention mask: sdpa and eager by a mask of blocks, flash
attention by the rows' lengths. For M-RoPE that is a plain count of tokens before the three of time, height and width.

Legend: R rows, T tokens of the longest, B packs, P tokens of the longest pack, N tokens in all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vfl.models.vlm import VLM
from vfl.train.rows.packs import PACKS, PackedCollator, Packs

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Layout:
    """Where the rows of a batch lie in its packs.

    Attributes:
        pack: (R,) of each row.
        start: (R,) place of its first token there.
        shape: (B, P).
    """

    pack: torch.Tensor
    start: torch.Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, inputs: Inputs) -> "Layout":
        """That of a batch of `PackedCollator`."""
        pack = inputs[PACKS]
        lengths = inputs["attention_mask"].sum(1)
        together = pack[:, None] == pack[None]
        before = together.tril(-1)
        width = int((together * lengths).sum(1).max())
        return cls(pack, (before * lengths).sum(1), (int(pack[-1]) + 1, width))

    def places(self, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(R, T) mask of tokens -> their packs (N,) and their places there (N,), row by row."""
        rows, columns = chosen.nonzero(as_tuple=True)
        return self.pack[rows], self.start[rows] + columns

    def laid(self, values: torch.Tensor, present: torch.Tensor, fill: int) -> torch.Tensor:
        """(R, T) values of tokens as (B, P), with `fill` behind the last."""
        packed = values.new_full(self.shape, fill)
        packed[self.places(present)] = values[present]
        return packed


@dataclass(frozen=True)
class Packing:
    """How a model takes packed rows.

    Attributes:
        vlm: the base model.
        pad: token id behind the end of the shorter packs of a batch.
    """

    vlm: VLM
    pad: int

    def inputs(self, batch: Inputs) -> Inputs:
        """A batch of `PackedCollator` as the model takes it: rows in their packs, with positions instead of a mask."""
        layout = Layout.of(batch)
        present = batch["attention_mask"].bool()
        fills = {"input_ids": self.pad, "labels": -100}
        fills |= {name: 0 for name in batch if name.endswith("token_type_ids")}
        rest = {name: value for name, value in batch.items() if name not in (PACKS, "attention_mask")}
        laid = {name: layout.laid(batch[name], present, fill) for name, fill in fills.items() if name in batch}
        if "labels" in laid:  # a row's first token is predicted by nothing
            laid["labels"][layout.pack, layout.start] = -100
        return {**rest, **laid, "position_ids": self._positions(batch, layout, present)}

    def _positions(self, batch: Inputs, layout: Layout, present: torch.Tensor) -> torch.Tensor:
        """(B, P) or, with M-RoPE, (4, B, P); padding stands at 0, each token alone."""
        count = torch.arange(present.shape[1], device=present.device).expand(present.shape)
        positions = self.vlm.positions_of(batch)
        if positions.ndim == 2:
            return layout.laid(positions.expand(present.shape), present, 0)
        return torch.stack([layout.laid(each, present, 0) for each in (count, *positions)])


class PackedLoss:
    """A mixin for `SFTTrainer` (named before it among the bases): steps over packs of rows.

    Attributes:
        packs: the training set, set before training; None where each row is a sequence by itself.
        packing: how the model takes them.
    """

    packs: Packs | None = None
    packing: Packing | None = None

    def get_train_dataloader(self) -> Any:
        """Batches of packs; other batches that are asked of the trainer's collator are of rows."""
        if self.packs is None:
            return super().get_train_dataloader()  # type: ignore[misc]
        rows, collate = self.train_dataset, self.data_collator  # type: ignore[has-type]
        self.train_dataset, self.data_collator = self.packs, PackedCollator(collate)
        try:
            return super().get_train_dataloader()  # type: ignore[misc]
        finally:
            self.train_dataset, self.data_collator = rows, collate

    def set_initial_training_values(self, args: Any, dataloader: Any) -> tuple[Any, ...]:
        """As Trainer does, with the rows of an epoch and of the run instead of their packs."""
        epochs, updates, examples, samples, *rest = super().set_initial_training_values(args, dataloader)  # type: ignore[misc]
        if self.packs is not None:
            examples, samples = len(self.packs.rows), samples * len(self.packs.rows) / len(self.packs)
        return epochs, updates, examples, samples, *rest

    def compute_loss(
        self, model: Any, inputs: Inputs, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As TRL's, over packed rows too."""
        if self.packing is None or PACKS not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        before, tokens = self._total_train_tokens, inputs["attention_mask"].sum()  # type: ignore[has-type]
        packed = self.packing.inputs(inputs)
        loss = super().compute_loss(model, packed, return_outputs, num_items_in_batch)  # type: ignore[misc]
        if model.training:  # TRL counts tokens by the mask, and without one by the first size of the positions
            self._total_train_tokens = before + int(self.accelerator.gather_for_metrics(tokens).sum())  # type: ignore[attr-defined]
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]  # type: ignore[attr-defined]
        return loss


@contextmanager
def states_of(norm: nn.Module) -> Iterator[list[torch.Tensor]]:
    """What the final norm returns, call by call, which are parts of one sequence; the hook is gone afterwards."""
    seen: list[torch.Tensor] = []
    handle = norm.register_forward_hook(lambda module, args, output: seen.append(output))
    try:
        yield seen
    finally:
        handle.remove()
