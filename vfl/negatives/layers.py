"""Where the model is blind: a map's layers, a list, a draw, all of them or none."""

from random import Random

from vfl.errors import InputError
from vfl.loading.config import map_of
from vfl.models.vlm import VLM
from vfl.negatives.config import RANDOM, NegativesConfig


def blind_layers(config: NegativesConfig, vlm: VLM) -> list[int]:
    """The layers of a configuration, ascending.

    Raises:
        InputError: for a map of another model or without the functions, or layers that the model does not have.
    """
    if config.map is not None:
        return map_of(vlm, config.map, allow_other_model=config.allow_other_model).layers_of(config.functions)
    if isinstance(config.blind, list):
        if outside := [layer for layer in config.blind if layer >= vlm.num_layers]:
            raise InputError(f"blind names {outside[0]}; the model has {vlm.num_layers}: 0 to {vlm.num_layers - 1}.")
        return config.blind
    return _by_word(str(config.blind), vlm.num_layers, config.seed)


def _by_word(word: str, num_layers: int, seed: int) -> list[int]:
    if word == "all":
        return list(range(num_layers))
    if word == "none":
        return []
    draw = RANDOM.fullmatch(word)
    assert draw is not None, word  # the configuration takes nothing else
    count = int(draw[1])
    if not 1 <= count <= num_layers:
        raise InputError(f"blind is {word}, but the model has {num_layers}. Give random:1 to random:{num_layers}.")
    return sorted(Random(seed).sample(range(num_layers), count))
