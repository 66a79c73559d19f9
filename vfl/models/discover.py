"""Find the parts of a model that every experiment needs, without naming its class."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from vfl.errors import InputError

# Kinds of layers, as `layer_types` of a configuration names them, with a recurrent or convolution state.
_LINEAR = ("linear_attention", "conv", "mamba", "hybrid", "hybrid_sliding")


@dataclass(frozen=True)
class Parts:
    """The language model inside a VLM.

    Attributes:
        body: the model without its output head.
        decoder: the language model, called with embeddings and positions.
        decoder_name: its name inside the model, such as "model.language_model".
        layers: its decoder layers, in order.
        norm: the final norm.
        head: hidden states to logits.
        image_token_id: the placeholder id whose positions hold vision (or audio) tokens.
        softcap: the final soft cap of the logits, or None.
    """

    body: nn.Module
    decoder: nn.Module
    decoder_name: str
    layers: nn.ModuleList
    norm: nn.Module
    head: nn.Module
    image_token_id: int
    softcap: float | None


def discover(model: PreTrainedModel) -> Parts:
    """Find decoder, layers, norm, head and the image placeholder of `model`.

    Raises:
        InputError: names what was not found on which class.
    """
    kind = type(model).__name__

    def missing(what: str) -> InputError:
        return InputError(
            f"{kind} is not supported: {what} was not found on it. Supported are decoder-only vision-language models "
            "with vision tokens in the prompt (`vfl models` lists the tested families)."
        )

    config = model.config
    # Families name the placeholder differently; both spellings are in released configs.
    image_token_id = getattr(config, "image_token_id", None)
    if image_token_id is None:
        image_token_id = getattr(config, "image_token_index", None)
    if image_token_id is None:
        image_token_id = getattr(config, "audio_token_id", None)
    if image_token_id is None:
        raise missing("an image or audio placeholder token (config.image_token_id, audio_token_id)")
    decoder = model.get_decoder()
    if not hasattr(decoder, "layers"):
        decoder = getattr(decoder, "model", decoder)  # Llama 4 gives its language model with the head
    layers = getattr(decoder, "layers", None)
    num_layers = config.get_text_config(decoder=True).num_hidden_layers
    if not isinstance(layers, nn.ModuleList) or len(layers) != num_layers:
        num_found = "none" if layers is None else str(len(layers))
        raise missing(f"the list of {num_layers} decoder layers ({type(decoder).__name__}.layers: {num_found})")
    refuse_by_config(config)
    if not all(hasattr(layer, "self_attn") for layer in layers):
        raise missing("softmax attention with keys and values in every decoder layer (`self_attn`)")
    norm = getattr(decoder, "norm", None)
    if not isinstance(norm, nn.Module):
        raise missing(f"the final norm ({type(decoder).__name__}.norm)")
    head = model.get_output_embeddings()
    if head is None:
        raise missing("an output head (get_output_embeddings)")
    names = [name for name, module in model.named_modules() if module is decoder]
    return Parts(
        body=model.base_model,
        decoder=decoder,
        decoder_name=names[0],
        layers=layers,
        norm=norm,
        head=head,
        image_token_id=int(image_token_id),
        softcap=None,
    )


def refuse_by_config(config: PreTrainedConfig) -> None:
    """Refuse models whose layers have no keys and values of their own to swap, by the configuration alone.

    Raises:
        InputError: names how many layers carry a state instead, or share what others computed.
    """
    text = config.get_text_config(decoder=True)
    if shared := getattr(text, "num_kv_shared_layers", 0):
        raise InputError(
            f"This model of type {config.model_type!r} can't be used here: its last {shared} of "
            f"{text.num_hidden_layers} decoder layers use the keys and values of earlier ones, so that they can't be "
            "swapped one by one. Give a model of the family without such layers."
        )
    kinds = getattr(text, "layer_types", None) or []
    linear = [kind for kind in kinds if kind in _LINEAR]
    if linear:
        raise InputError(
            f"Models of type {config.model_type!r} can't be used here: they have hybrid linear attention. "
            f"{len(linear)} of {len(kinds)} decoder layers ({', '.join(sorted(set(linear)))}) carry the image on in a "
            "state, not in keys and values that could be swapped. `vfl models` lists the supported families."
        )


def logits_of(parts: Parts, hidden: torch.Tensor) -> torch.Tensor:
    """(..., d) output of the last decoder layer -> (..., vocabulary) logits."""
    logits = parts.head(parts.norm(hidden))
    return logits if parts.softcap is None else parts.softcap * torch.tanh(logits / parts.softcap)
