"""A short run of LoRA in all layers, to see which of them training moves most.

The size of a layer's update after a few steps ranks it, as in arXiv 2402.07721, 2410.17875 and 2412.12785.
"""

import math
from collections.abc import Iterable

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from vfl.models.discover import discover
from vfl.train.layers.scores import Tensors, answer_loss

SHARE = 0.05  # of a run's steps


def warmup_scores(
    model: PreTrainedModel, config: LoraConfig, batches: Iterable[Tensors], learning_rate: float, seed: int
) -> tuple[float, ...]:
    """Norm of each layer's LoRA update after one step on each batch; the model is plain again afterwards.

    Args:
        model: without an adapter.
        config: LoRA on all layers.
        batches: inputs with labels; a step each.
        learning_rate: of AdamW, constant.
        seed: of the adapter's start.
    """
    layers = discover(model).layers
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
        try:
            trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=learning_rate)
            adapted.train()
            for batch in batches:
                answer_loss(adapted, batch).backward()
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            scores = tuple(_update(layer) for layer in layers)
        finally:
            adapted.unload()
            for parameter, needed in wanted:
                parameter.requires_grad_(needed)
            for module, mode in modes:
                module.training = mode
    return scores


@torch.no_grad()
def _update(layer: torch.nn.Module) -> float:
    """Norm of all updates in a layer."""
    total = 0.0
    for module in layer.modules():
        for name in getattr(module, "lora_A", {}):
            total += float(module.get_delta_weight(name).float().square().sum())  # type: ignore[operator]
    return math.sqrt(total)
