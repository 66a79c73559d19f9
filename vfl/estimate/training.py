"""`vfl train`: LoRA in chosen decoder layers, one micro-batch at a time, its way back ending at the lowest of them."""

import math

from vfl.engine.memory import ADAM_BYTES
from vfl.engine.operations import step_operations, tower_operations
from vfl.errors import InputError
from vfl.estimate.config import EstimateConfig
from vfl.estimate.cost import CONTEXT, Cost, Pass
from vfl.estimate.tokens import Prompt, element_of, prefix_bytes, prompt_of, running_bytes, said_of, weight_bytes
from vfl.io.layers import layer_list
from vfl.models.shape import Shape

BATCH = 4
ADAPTER_BYTES = 4  # of a trained number: PEFT keeps adapters in float32
CHECKPOINTS = 2  # kept beside the result, each with the moments of Adam
# TRL's fused head holds float32 logits of so many positions and words at a time.
TILE = (4096, 32768)


def training(config: EstimateConfig, shape: Shape) -> Cost:
    """Train on rows once, or for so many steps.

    Raises:
        InputError: for layers that the model does not have, or settings that `vfl train` refuses together.
    """
    _check_backward(config)
    prompt, batch = prompt_of(config, shape, "train"), config.batch_size or BATCH
    layers = trained_layers(config, shape)
    steps = config.steps or math.ceil(config.data_rows / config.rows_a_step)
    of_card = math.ceil(config.rows_a_step / config.gpus)
    row = tower_operations(shape, prompt.picture) + decoder_operations(config, shape, prompt)
    launches = math.ceil(of_card / batch) * (3 if config.checkpointing else 2)
    step = [Pass("forward and backward", of_card * row, launches, weight_bytes(config, shape))]
    adapter = adapter_parameters(config, shape)
    return Cost(
        unit="step",
        count=steps,
        least=step,
        most=step,
        memory=_memory(config, shape, prompt, batch),
        disk={
            "adapter": ADAPTER_BYTES * adapter,
            f"{CHECKPOINTS} checkpoints": CHECKPOINTS * (ADAPTER_BYTES + 8) * adapter,
        },
        assumed=[
            *said_of(config, shape, prompt),
            f"{steps:,} steps of {config.rows_a_step} rows, {batch} at a time on a card; LoRA of rank {config.rank} in "
            f"attention and MLP of layers {layer_list(layers)}, checkpointing "
            f"{'on' if config.checkpointing else 'off'}",
            *_said_of_backward(config),
            "supervised fine-tuning; evaluations on the way, and preference training, are not counted",
            *(["ZeRO-3 gathers each layer's weights for every pass: its traffic is not counted"]
              if config.spread else []),
        ],
    )  # fmt: skip


def decoder_operations(config: EstimateConfig, shape: Shape, prompt: Prompt) -> float:
    """Of a row's forward and backward pass, the mean over steps whose backward pass ends at the image and others."""

    def step(constant: int) -> int:
        return step_operations(
            shape,
            prompt.length + prompt.answer,
            layers=trained_layers(config, shape),
            rank=config.rank,
            logits=prompt.answer,
            checkpointing=config.checkpointing and not constant,  # layers that read a cache are not recomputed
            constant=constant,
        )

    if config.backward is None:
        return step(0)
    every = config.backward.whole_every
    whole = 1 / every if every else 0.0
    return whole * step(0) + (1 - whole) * step(prompt.shared)


def never_whole(config: EstimateConfig) -> bool:
    """Whether no step's backward pass goes through the image's tokens."""
    return config.backward is not None and not config.backward.whole_every


def _check_backward(config: EstimateConfig) -> None:
    if config.checkpointing and never_whole(config):
        raise InputError(
            "backward: after_image with whole_every: 0 recomputes no layer, so checkpointing does nothing there: leave "
            "checkpointing out, or set whole_every"
        )
    if config.spread and config.backward is not None:
        raise InputError(
            "backward: after_image is not for ZeRO-3, which spread means in training: leave one of them out"
        )


def _said_of_backward(config: EstimateConfig) -> list[str]:
    if config.backward is None:
        return []
    every = config.backward.whole_every
    return [
        "the backward pass ends at the image in "
        + (f"all steps but one in {every}, whose memory is what counts" if every else "all steps")
    ]


def trained_layers(config: EstimateConfig, shape: Shape) -> list[int]:
    """The layers that are trained, ascending.

    Raises:
        InputError: for layers that the model does not have.
    """
    layers = sorted(set(config.train_layers or range(shape.num_layers)))
    if outside := [layer for layer in layers if not 0 <= layer < shape.num_layers]:
        raise InputError(
            f"train_layers names {layer_list(outside)}; the model has {shape.num_layers} decoder layers: 0 to "
            f"{shape.num_layers - 1}."
        )
    return layers


def adapter_parameters(config: EstimateConfig, shape: Shape) -> int:
    """Trained numbers."""
    return config.rank * sum(shape.lora[layer] for layer in trained_layers(config, shape))


def kept_bytes(config: EstimateConfig, shape: Shape) -> float:
    """What a token leaves in one layer for the way back, without checkpointing.

    Two norms with their input in float32, queries, keys and values before and after their positions and repeated for
    all heads, the attention's output, four MLP states, and for LoRA each module's input in float32 with its dropout
    mask.
    """
    element, hidden, width = element_of(config), shape.hidden, shape.intermediate
    kv = shape.kv_heads * shape.head_dim
    norms = 2 * hidden * (4 + element)
    attention = element * (5 * shape.attention + 4 * kv)
    mlp = 4 * element * width
    read = 5 * hidden + shape.attention + width  # inputs of the seven modules
    return norms + attention + mlp + read * (ADAPTER_BYTES + 1)


def activation_bytes(config: EstimateConfig, shape: Shape, tokens: int, logits: int, whole_tile: bool = False) -> float:
    """What a micro-batch of so many tokens holds at its peak.

    Args:
        logits: positions whose logits are computed.
        whole_tile: room for all words of a tile is taken, however few there are.
    """
    layers, element = trained_layers(config, shape), element_of(config)
    covered = shape.num_layers - layers[0]
    kept = tokens * kept_bytes(config, shape)
    states = tokens * shape.hidden * element * covered + kept if config.checkpointing else kept * covered
    words = TILE[1] if whole_tile else min(TILE[1], shape.vocabulary)
    return states + running_bytes(shape, tokens, element) + 4 * min(TILE[0], logits) * words


def _memory(config: EstimateConfig, shape: Shape, prompt: Prompt, batch: int) -> dict[str, float]:
    tokens, constant = batch * (prompt.length + prompt.answer), 0
    if never_whole(config):
        constant = batch * prompt.shared
    adapter, share = adapter_parameters(config, shape), config.gpus if config.spread else 1
    return {
        "weights": weight_bytes(config, shape) / share,
        "adapter": ADAPTER_BYTES * adapter,
        "gradients and Adam": (ADAPTER_BYTES + ADAM_BYTES) * adapter / share,
        "activations": activation_bytes(config, shape, tokens - constant, batch * prompt.answer),
        **({"keys and values up to the image": prefix_bytes(shape, constant, element_of(config))} if constant else {}),
        "CUDA context": CONTEXT,
    }
