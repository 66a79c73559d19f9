"""Random weights that make attention uneven and logits differ, the same on every build, saved as a checkpoint."""

import math
import zlib
from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

GAIN = 1.3  # above 1: what a layer adds is not drowned by the residual stream
SHARPNESS = 2.0  # of queries and keys: attention far from uniform, so that single tokens of the image matter
EMBEDDING = 0.3
# Where the output shares the embeddings, a large one makes the model repeat its last token whatever the image.
TIED_EMBEDDING = 0.12


def save(
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    processor: ProcessorMixin | PreTrainedTokenizerBase,
    folder: Path,
) -> Path:
    """Write model, generation settings and processor so that the Auto classes load `folder` offline."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
    randomise(model)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def randomise(model: PreTrainedModel) -> None:
    """Draw every parameter from a generator seeded by its name, so that no draw depends on the order of the others."""
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    embedding = TIED_EMBEDDING if tied else EMBEDDING
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
        with torch.no_grad():
            parameter.copy_(_scaled(name, parameter, noise, embedding))


def _scaled(name: str, parameter: torch.Tensor, noise: torch.Tensor, embedding: float) -> torch.Tensor:
    module = name.split(".")[-2]
    if module in {"q_norm", "k_norm"}:
        return parameter + SHARPNESS - 1 + 0.2 * noise
    if parameter.dim() < 2:
        # Scales of norms start at one (at zero in Gemma, which adds the one itself) and biases at zero: keep, disturb.
        return parameter + 0.2 * noise
    if ("embed" in name and "patch" not in name) or module == "lm_head":
        return embedding * noise
    gain = SHARPNESS if module in {"q_proj", "k_proj"} else GAIN
    return gain / math.sqrt(parameter[0].numel()) * noise
