"""FSDP2 (PyTorch's `fully_shard`) for an adapter: what is large and frozen is spread, what is small and trained is not.

Each decoder layer's frozen weights lie in equal pieces on the ranks and are put together while the layer runs. Adapter,
embeddings, head and vision tower stay whole on every rank: a rank without an image in its batch keeps no other waiting,
and gradients, optimizer, checkpoints and the adapter's file are those of plain data parallelism (DDP).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from vfl.errors import InputError
from vfl.train.recipe import Recipe

# What DDP reads on the module that it wraps: these parameters are not compared or averaged over the ranks.
NOT_DDPS = "_ddp_params_and_buffers_to_ignore"


def check_fsdp(recipe: Recipe, world_size: int) -> None:
    """Say what it can't go with before a model is read.

    Raises:
        InputError: names it, and what to set instead.
    """
    if world_size == 1:
        raise InputError(
            "fsdp spreads the weights over several processes, and this is one: start with torchrun --nproc-per-node N, "
            "or leave fsdp out."
        )
    why = {
        "method: grpo": (recipe.method == "grpo", "samples answers, for which every token would gather all weights"),
        "quantize": (recipe.quantize is not None, "keeps weights in a form that can't be cut into pieces"),
        "packing": (recipe.packing, "is tried on whole weights before the run"),
        "backward: after_image": (recipe.backward is not None, "runs the layers twice a step"),
        "adapter": (recipe.adapter is not None, "is put on whole weights"),
    }
    if found := next((f"{key} {reason}" for key, (asked, reason) in why.items() if asked), None):
        raise InputError(f"fsdp can't be had here: {found}. Use deepspeed: zero2, or leave one of the two out.")


def spread(model: nn.Module, decoder: nn.Module, layers: nn.ModuleList, device: torch.device) -> None:
    """Spread the layers' frozen weights over all ranks, and put what stays whole on the device.

    Args:
        model: what will be trained, with its adapter, its base on the CPU or the device; every rank has the same.
        decoder: the module that runs the layers.
        layers: its layers.
        device: of this rank.
    """
    if isinstance(decoder, FSDPModule):
        return
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    times = Counter(parameter for layer in layers for parameter in set(layer.parameters()))
    # A number alone can't be cut, and what two layers share belongs to neither.
    pieces = {p for p, n in times.items() if n == 1 and p.dim() and not p.requires_grad}
    whole = set(model.parameters()) - pieces
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params=whole)
    # Nothing of its own is left to spread: it lets the layers fetch each other's weights ahead.
    fully_shard(decoder, mesh=mesh, ignored_params=whole)
    model.to(device)
    setattr(model, NOT_DDPS, [name for name, parameter in model.named_parameters() if isinstance(parameter, DTensor)])


def is_spread(layers: Iterable[nn.Module]) -> bool:
    """Whether `spread` was here."""
    return any(isinstance(layer, FSDPModule) for layer in layers)


@contextmanager
def whole(layers: Iterable[nn.Module]) -> Iterator[None]:
    """The layers' weights put together once, so that each rank can run the model by itself; all must enter and leave.

    After the first forward pass alone, in which the layers learn what they belong to.
    """
    parts = [layer for layer in layers if isinstance(layer, FSDPModule)]
    try:
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()
