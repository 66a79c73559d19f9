"""What a user's training rows say of each decoder layer, in one forward and backward pass over a few of them.

gradient    norm of the loss' gradient over norm of the weights (Auto-RGN, arXiv 2210.11466), batch by batch
fisher      mean squared gradient of a weight, row by row (the empirical Fisher information)
similarity  angle between what enters and what leaves the layer, over pi

Gradients are those of the frozen weights' Linear modules, worked out from what enters and what comes back: no weight
requires a gradient, so quantized models can be scored, and memory is that of a training step on all layers.

Legend: B rows, T tokens, I inputs, O outputs of a module.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft.utils.integrations import dequantize_module_weight
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy
from transformers import PreTrainedModel

from vfl.errors import InputError
from vfl.models.discover import discover
from vfl.train.adapter.towers import linear_names

logger = logging.getLogger(__name__)

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class LayerScores:
    """One number a layer for each rule, higher for layers that the data asks to change.

    Attributes:
        gradient, fisher, similarity: as the module says.
        modules: the gradient rule for each module of a layer by its name in the layer, one number a layer.
        rows: how many rows were read.
    """

    gradient: tuple[float, ...]
    fisher: tuple[float, ...]
    similarity: tuple[float, ...]
    modules: dict[str, tuple[float, ...]]
    rows: int


def score_layers(model: PreTrainedModel, batches: Iterable[Tensors]) -> LayerScores:
    """Score all decoder layers of a plain model; it is left as it was.

    Args:
        model: without an adapter.
        batches: inputs with `labels` (-100 outside of answers), as `vfl.train.rows.collate.Collator` makes them.

    Raises:
        InputError: for no rows, or a loss that is not finite.
    """
    parts = discover(model)
    meter = _Meter(parts.layers)
    with _scored(model, meter):
        for batch in batches:
            meter.start(batch)
            loss = answer_loss(model, batch)
            if not math.isfinite(value := loss.item()):
                raise InputError(
                    f"The loss of rows {meter.rows} to {meter.rows + len(batch['labels']) - 1} is {value}, so "
                    "layers can't be scored by their gradients. Check dtype and data, or name the layers yourself."
                )
            loss.backward()
            meter.finish()
    if meter.rows == 0:
        raise InputError("There are no rows to score layers by. Give at least one row with an answer.")
    return meter.scores()


def answer_loss(model: nn.Module, batch: Tensors) -> torch.Tensor:
    """Mean loss over the batch's answer tokens."""
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in batch.items() if name != "labels"}
    following = batch["labels"][:, 1:].to(device)
    answers = following >= 0
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    return cross_entropy(logits[answers].float(), following[answers])


@contextmanager
def _scored(model: PreTrainedModel, meter: "_Meter") -> Iterator[None]:
    """The model evaluating, with gradients from its first layer on and the meter's hooks; as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    for parameter, _ in wanted:
        parameter.requires_grad_(False)
    handles = meter.hooks()
    try:
        with torch.enable_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter, needed in wanted:
            parameter.requires_grad_(needed)
        for module, mode in modes:
            module.training = mode


class _Meter:
    """Sums over batches and rows; one hook a Linear module and one a layer."""

    def __init__(self, layers: nn.ModuleList) -> None:
        self.layers = layers
        self.names = [linear_names(layer) for layer in layers]
        self.rows = self.batches = 0
        self.tokens = 0.0
        count = len(layers)
        self.norms = [0.0] * count  # over batches, of a layer's gradient
        self.squares = [0.0] * count  # over rows, of a layer's gradient
        self.angles = [0.0] * count  # over tokens
        self.module_norms: list[dict[str, float]] = [dict.fromkeys(names, 0.0) for names in self.names]
        self._answers = torch.ones(0)
        self._mask = torch.ones(0)
        self._batch: list[dict[str, float]] = []

    def start(self, batch: Tensors) -> None:
        self._answers = (batch["labels"][:, 1:] >= 0).sum(1)
        self._mask = batch["attention_mask"].bool()
        self._batch = [{} for _ in self.layers]

    def finish(self) -> None:
        """Count a batch whose backward pass is over."""
        self.rows += len(self._answers)
        self.batches += 1
        self.tokens += float(self._mask.sum())
        for layer, squares in enumerate(self._batch):
            self.norms[layer] += math.sqrt(sum(squares.values()))
            for name, square in squares.items():
                self.module_norms[layer][name] += math.sqrt(square)

    def hooks(self) -> list[Any]:
        handles: list[Any] = [self.layers[0].register_forward_pre_hook(_start_here)]
        for number, layer in enumerate(self.layers):
            handles.append(layer.register_forward_hook(self._turn(number)))
            for name in self.names[number]:
                handles.append(layer.get_submodule(name).register_forward_hook(self._product(number, name)))
        return handles

    def scores(self) -> LayerScores:
        weights = [
            {name: _norm_and_size(layer.get_submodule(name)) for name in names}
            for layer, names in zip(self.layers, self.names, strict=True)
        ]
        whole = [math.sqrt(sum(norm**2 for norm, _ in layer.values())) for layer in weights]
        sizes = [sum(size for _, size in layer.values()) for layer in weights]
        every = dict.fromkeys(name for names in self.names for name in names)
        return LayerScores(
            gradient=tuple(norm / self.batches / weight for norm, weight in zip(self.norms, whole, strict=True)),
            fisher=tuple(square / self.rows / size for square, size in zip(self.squares, sizes, strict=True)),
            similarity=tuple(angle / self.tokens for angle in self.angles),
            modules={
                name: tuple(
                    norms.get(name, 0.0) / self.batches / layer[name][0] if name in layer else 0.0
                    for norms, layer in zip(self.module_norms, weights, strict=True)
                )
                for name in every
            },
            rows=self.rows,
        )

    def _turn(self, number: int) -> Callable[..., None]:
        def measure(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            left = output[0] if isinstance(output, tuple) else output
            cosine = cosine_similarity(args[0].detach().float(), left.detach().float(), dim=-1)
            angles = torch.arccos(cosine.clamp(-1, 1)) / math.pi  # (B, T)
            self.angles[number] += float(angles[self._mask.to(angles.device)].sum())

        return measure

    def _product(self, number: int, name: str) -> Callable[..., None]:
        def watch(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
            if not output.requires_grad:
                return
            entered = args[0].detach()

            def measure(back: torch.Tensor) -> None:
                self._count(number, name, entered, back)

            output.register_hook(measure)

        return watch

    def _count(self, number: int, name: str, entered: torch.Tensor, back: torch.Tensor) -> None:
        """The gradient of a module's weight: its square over the batch, and each row's own."""
        if entered.dim() == 2:  # tokens of all rows in one heap, as experts see them: they count as one row
            entered, back = entered[None], back[None]
        entered, back = entered.float(), back.float()
        batch = self._batch[number]
        whole = back.flatten(0, -2).T @ entered.flatten(0, -2)  # (O, I)
        batch[name] = batch.get(name, 0.0) + float(whole.square().sum())
        # |sum_t b_t x_t'|^2 = sum_ts (b_t . b_s)(x_t . x_s): no (B, O, I) tensor is ever made.
        rows = ((back @ back.transpose(1, 2)) * (entered @ entered.transpose(1, 2))).sum((1, 2))  # (B,)
        # The batch's loss is a mean over all its answer tokens, a row's own loss one over its own.
        answers = self._answers.to(rows.device)
        share = answers.sum() / answers.clamp(min=1) if len(rows) == len(answers) else torch.ones_like(rows)
        self.squares[number] += float((rows * share.square()).sum())


def _start_here(layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return args[0].detach().requires_grad_(), *args[1:]


def _norm_and_size(module: nn.Module) -> tuple[float, int]:
    weight = dequantize_module_weight(module)
    return float(weight.detach().float().norm()), weight.numel()
