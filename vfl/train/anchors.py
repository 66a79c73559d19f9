"""Anchor rows: a KL term holds what the model says of them to what it says without its adapter.

A step's loss is, over all of its answer tokens, accumulated batches and ranks included,

    (sum over new rows' tokens of -log q(token)  +  beta * sum over anchors' tokens of KL(p, q)) / number of both

with q the model as it is, and p the model without its adapter, before the same token of the anchor's own answer. So an
anchor token counts as a replayed one does, only that it is to be said as before and not to be learned (after Learning
without Forgetting, arXiv 1606.09282).

p is kept as the state that the output head reads, d numbers a token in place of V (3,584 for 152,064 in Qwen2.5-VL 7B).
The head is frozen, so it makes all of p again, where the top k of p would be an approximation, and a step needs no
second pass.

Legend: B rows, T tokens, N answer tokens of anchors, d the model's width, V its vocabulary.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch.nn.functional import kl_div, log_softmax

from vfl.engine.untouched import untouched
from vfl.errors import InputError
from vfl.models.vlm import VLM
from vfl.train.packed import Layout, states_of
from vfl.train.rows.packs import PACKS
from vfl.train.rows.table import ANCHOR

logger = logging.getLogger(__name__)


class Anchors:
    """What the model without its adapter says of the anchor rows.

    Args:
        vlm: the base model, in which the adapter is.
        rows: the training set; those with a number in its column `anchor` are the anchors, each number one row.
        beta: weight of the KL term.
    """

    def __init__(self, vlm: VLM, rows: Dataset, beta: float) -> None:
        self.vlm, self.beta = vlm, beta
        first: dict[int, int] = {}
        for index, number in enumerate(rows[ANCHOR]):
            if number >= 0:
                first.setdefault(number, index)
        # As they lie in their pool, not as they are shuffled: pictures in one row group are read together.
        self.rows = rows.select([first[number] for number in sorted(first)])
        self._states: dict[int, torch.Tensor] = {}

    def measure(self, trainer: Any) -> None:
        """Pass all anchors through the base model, unless that was done; every rank alike, as ZeRO-3 needs it.

        Args:
            trainer: whose collator, batch size and precision are used.

        Raises:
            InputError: for a model whose predictions are not its frozen head's.
        """
        if self._states:
            return
        logger.info("%d anchor rows are passed through the base model", len(self.rows))
        model: PeftModel = trainer.model
        self._check_head(model)
        size = trainer.args.per_device_train_batch_size
        measured: dict[int, torch.Tensor] = {}
        with untouched(self.vlm), _disabled(model), trainer.compute_loss_context_manager():
            for start in range(0, len(self.rows), size):
                batch = trainer.data_collator([self.rows[n] for n in range(start, min(start + size, len(self.rows)))])
                inputs = trainer._prepare_inputs(batch)
                numbers = inputs.pop("anchors")
                inputs.pop("starts", None)  # no gradient is taken here
                with states_of(self.vlm.parts.norm) as seen:
                    output = model(**inputs, use_cache=False, fused_lm_head=True)
                answers = inputs["labels"] != -100
                states = before(torch.cat(seen, dim=1), answers)
                self._check_predictions(states, inputs["labels"][answers], output.log_probs[answers[:, 1:]])
                counts = answers[numbers >= 0].sum(1).tolist()
                parts = states.cpu().split(counts)
                measured |= dict(zip(numbers[numbers >= 0].tolist(), parts, strict=True))
        self._states = measured

    def divergence(self, numbers: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Sum over N tokens of KL(p, q), in nats.

        Args:
            numbers: (B,) of the anchors; -1 for other rows.
            states: (N, d) what the head reads now, of the anchors' answer tokens row by row.
        """
        kept = [self._states[number] for number in numbers.tolist() if number >= 0]
        base = torch.cat(kept).to(states.device) if kept else states.detach()
        with torch.no_grad():
            old = self._log_probs(base)
        # Without any anchor too: under ZeRO-3 every rank takes part in gathering the head.
        return kl_div(self._log_probs(states), old, log_target=True, reduction="sum")

    def _log_probs(self, states: torch.Tensor) -> torch.Tensor:
        """(N, d) -> (N, V), in float32 or better."""
        logits = self.vlm.parts.head(states)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        cap = getattr(self.vlm.model.config.get_text_config(decoder=True), "final_logit_softcapping", None)
        return log_softmax(logits if cap is None else cap * torch.tanh(logits / cap), dim=-1)

    def _check_head(self, model: PeftModel) -> None:
        head = self.vlm.parts.head
        if self.vlm.model.get_output_embeddings() is not head or any(p.requires_grad for p in head.parameters()):
            raise InputError(
                "protect.how: kl needs the model's own output head as it was, and these lora settings train or replace "
                "it. Leave lora.modules_to_save and trainable_token_indices out, or protect by how: freeze or scale."
            )

    def _check_predictions(self, states: torch.Tensor, tokens: torch.Tensor, expected: torch.Tensor) -> None:
        """Families that scale their logits beyond head and soft cap would be held to something else."""
        ours = self._log_probs(states).gather(1, tokens[:, None])[:, 0]
        half = states.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled(states.device.type)
        difference = (ours - expected).abs() / expected.abs().clamp(min=1)
        if bool((difference > (6e-2 if half else 1e-3)).any()):
            raise InputError(
                f"The predictions of {type(self.vlm.model).__name__} are not its head over its final norm (they differ "
                f"by {float(difference.max()):.2g}), so protect.how: kl can't hold it. Use how: freeze or scale."
            )


class AnchoredLoss:
    """A mixin for `SFTTrainer` (named before it among the bases): the loss with the anchors' KL term.

    Attributes:
        anchors: set before training; None for none.
    """

    anchors: Anchors | None = None

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As TRL's, over the new rows; and the KL term, over the same number of tokens."""
        numbers = inputs.pop("anchors", None)
        if self.anchors is None or numbers is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        self.anchors.measure(self)  # at the first batch: only by then ZeRO-3 can run the model
        answers = inputs["labels"] != -100
        held = answers & (numbers >= 0)[:, None]
        layout = Layout.of(inputs) if PACKS in inputs else None
        inputs = {**inputs, "labels": inputs["labels"].masked_fill(held, -100)}
        with states_of(self.anchors.vlm.parts.norm) as seen:
            loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)  # type: ignore[misc]
        divergence = self.anchors.divergence(numbers, before(torch.cat(seen, dim=1), held, layout))
        # As TRL has it: Trainer counts the labels of both kinds of rows, over all ranks, and DDP averages over these.
        tokens = answers[:, 1:].sum() if num_items_in_batch is None else num_items_in_batch
        term = self.anchors.beta * divergence / torch.as_tensor(tokens).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:  # type: ignore[attr-defined]
            term = term * (self.accelerator.num_processes // self.get_tp_size())  # type: ignore[attr-defined]
        self._record((answers & ~held)[:, 1:].sum(), held[:, 1:].sum(), divergence.detach())
        return loss + term

    def _record(self, new: torch.Tensor, held: torch.Tensor, divergence: torch.Tensor) -> None:
        """The mean divergence of a batch's anchor tokens; what TRL measured of no new token is none."""
        model, accelerator = self.model, self.accelerator  # type: ignore[attr-defined]
        metrics = self._metrics["train" if model.training else "eval"]  # type: ignore[attr-defined]
        counts = torch.stack([new.double(), held.double(), divergence.double()])
        new_tokens, held_tokens, nats = accelerator.gather(counts[None]).sum(0).tolist()
        if held_tokens:
            metrics["kl"].append(nats / held_tokens)
        for name in ("entropy", "mean_token_accuracy") if not new_tokens else ():
            metrics[name].pop()
            if not metrics[name]:
                del metrics[name]


@contextmanager
def _disabled(model: PeftModel) -> Iterator[None]:
    """The model without its adapter; PEFT would let all of it be trained afterwards, layers that are frozen too."""
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with model.disable_adapter():
            yield
    finally:
        for parameter, flag in trained:
            parameter.requires_grad_(flag)


def before(states: torch.Tensor, answers: torch.Tensor, layout: Layout | None = None) -> torch.Tensor:
    """(B, T, d) states and (B, T) answer tokens -> (N, d) states that predict them, row by row.

    Args:
        layout: where the rows lie, where the states are those of packs.
    """
    predicted = answers[:, 1:].to(states.device)
    return states[:, :-1][predicted] if layout is None else states[layout.places(predicted)]
