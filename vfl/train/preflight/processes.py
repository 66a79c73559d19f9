"""How a run is spread over processes and devices, and how many optimizer steps that makes."""

import math
import os
import platform
from collections.abc import Mapping

import psutil
import torch
from pydantic import BaseModel, ConfigDict
from transformers import TrainingArguments
from trl import GRPOConfig

from vfl.train.grpo.arguments import rounds, sampled_together

GATHER = "stage3_gather_16bit_weights_on_model_save"


class Device(BaseModel):
    """A device of this machine; bytes of memory in all and free when it was asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    total_bytes: int
    free_bytes: int


class ZeroFacts(BaseModel):
    """What the DeepSpeed configuration asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: int
    offload_optimizer: str | None  # cpu or nvme
    offload_parameters: str | None
    gathers_weights: bool  # ZeRO-3 puts the shards together when it saves


class LaunchFacts(BaseModel):
    """Processes, devices and steps of a run; `warnings` are likely mistakes, each with its fix."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    world_size: int
    rank: int
    local_rank: int
    local_world_size: int
    backend: str | None  # of torch.distributed; None in one process
    zero: ZeroFacts | None
    fsdp: bool = False  # the layers' frozen weights are spread over the processes
    device: str
    devices: tuple[Device, ...]  # of this machine
    mixed_precision: str  # no, bf16 or fp16
    micro_batch: int  # rows, or packs of them, that a process takes at once
    accumulation: int
    global_batch: int
    generations: int = 1  # sampled answers to a question, which a step counts as its rows
    rows: int
    packs: int = 0  # sequences that the rows lie in; 0 where each row is one by itself
    epochs: float
    steps_per_epoch: int
    total_steps: int
    warnings: tuple[str, ...]

    @property
    def unit(self) -> str:
        """What a batch is counted in."""
        if self.packs:
            return "packs"
        return "answers" if self.generations > 1 else "rows"


def launch_facts(
    args: TrainingArguments,
    rows: int,
    packs: int = 0,
    *,
    fsdp: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> LaunchFacts:
    """The facts of this process's run over `rows` training rows, from its arguments and torch.distributed.

    Args:
        packs: sequences that the rows lie in, where they are packed.
        fsdp: whether the recipe asks for it.
        environment: what torchrun and its like set (LOCAL_WORLD_SIZE).
    """
    device, world = args.device, args.world_size  # `device` sets up torch.distributed: ask it first
    accumulation = args.gradient_accumulation_steps
    global_batch = args.train_batch_size * accumulation * world
    samples = isinstance(args, GRPOConfig)
    if samples:
        batches = rows // sampled_together(args) * rounds(args)  # the last questions of an epoch fill no round
        steps = max(math.ceil(batches / accumulation), 1)
    else:
        steps = steps_per_epoch(packs or rows, args.train_batch_size, world, accumulation, args.dataloader_drop_last)
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    zero = _zero(args)
    return LaunchFacts(
        world_size=world,
        rank=args.process_index,
        local_rank=args.local_process_index,
        local_world_size=int(environment.get("LOCAL_WORLD_SIZE", 1)),
        backend=torch.distributed.get_backend() if distributed else None,
        zero=zero,
        fsdp=fsdp,
        device=str(device),
        devices=_devices(device),
        mixed_precision=args.mixed_precision,
        micro_batch=args.train_batch_size,
        accumulation=accumulation,
        global_batch=global_batch,
        generations=args.num_generations if samples else 1,
        rows=rows,
        packs=packs,
        epochs=float(args.num_train_epochs) if args.max_steps <= 0 else round(args.max_steps / steps, 3),
        steps_per_epoch=steps,
        total_steps=args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps),
        warnings=tuple(_warnings(args, rows, packs, global_batch, zero)),
    )


def steps_per_epoch(rows: int, micro_batch: int, world_size: int, accumulation: int, drop_last: bool = False) -> int:
    """Optimizer steps that Trainer makes of one pass over the rows; the last may hold fewer rows."""
    batches = rows // micro_batch if drop_last else math.ceil(rows / micro_batch)
    # accelerate deals whole batches to the ranks and fills the last round, or drops it.
    rounds = batches // world_size if drop_last else math.ceil(batches / world_size)
    return max(math.ceil(rounds / accumulation), 1)


def _zero(args: TrainingArguments) -> ZeroFacts | None:
    plugin = args.deepspeed_plugin
    if plugin is None:
        return None
    settings = plugin.deepspeed_config.get("zero_optimization", {})

    def offload(kind: str) -> str | None:
        device = (settings.get(kind) or {}).get("device")
        return None if device in (None, "none") else str(device)

    return ZeroFacts(
        stage=int(settings.get("stage", 0)),
        offload_optimizer=offload("offload_optimizer"),
        offload_parameters=offload("offload_param"),
        gathers_weights=settings.get(GATHER) is True,
    )


def _devices(device: torch.device) -> tuple[Device, ...]:
    if device.type == "cuda":
        devices = []
        for n in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(n)
            devices.append(Device(name=torch.cuda.get_device_name(n), total_bytes=total, free_bytes=free))
        return tuple(devices)
    memory = psutil.virtual_memory()
    name = f"{platform.machine()} processor, {psutil.cpu_count()} cores"
    return (Device(name=name, total_bytes=memory.total, free_bytes=memory.available),)


def _warnings(
    args: TrainingArguments,
    rows: int,
    packs: int,
    global_batch: int,
    zero: ZeroFacts | None,
) -> list[str]:
    warnings = []
    if zero and zero.stage == 3 and not zero.gathers_weights:
        warnings.append(
            f"ZeRO-3 without zero_optimization.{GATHER} saves an empty adapter: set it to true in the "
            "DeepSpeed configuration."
        )
    if args.torch_compile:
        warnings.append(
            "torch_compile compiles anew for rows of other lengths, which takes minutes: it pays in long runs alone."
        )
    if args.n_gpu > 1:
        warnings.append(
            f"One process drives {args.n_gpu} GPUs by DataParallel, which is slow and unsupported here: start with "
            f"`torchrun --nproc-per-node {args.n_gpu}`, or show it one GPU (CUDA_VISIBLE_DEVICES=0)."
        )
    if global_batch > (packs or rows) and not isinstance(args, GRPOConfig):
        what = (
            f"{global_batch} packs but the data fills {packs}"
            if packs
            else f"{global_batch} rows but the data has {rows}"
        )
        warnings.append(
            f"A step takes {what}, so each epoch is one incomplete step: lower gradient_accumulation_steps."
        )
    return warnings
