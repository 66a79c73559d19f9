"""`vfl estimate`: what locating, scoring, training and measuring will cost on a card, from a model's config."""

from collections.abc import Iterator
from dataclasses import dataclass

from transformers import PreTrainedModel

from vfl.estimate.cards import CARDS, Card
from vfl.estimate.config import WORKS, EstimateConfig, Work
from vfl.estimate.cost import Cost
from vfl.estimate.locating import locating
from vfl.estimate.measuring import measuring
from vfl.estimate.scoring import scoring
from vfl.estimate.training import never_whole, training
from vfl.models.families import family_of
from vfl.models.shape import Shape, shape_of
from vfl.train.export.meta_model import meta_model


@dataclass(frozen=True)
class Estimate:
    """What one work costs on a card, and which changes would make it fit where it does not."""

    work: Work
    cost: Cost
    seconds: tuple[float, float]
    fits: bool
    remedies: tuple[str, ...]


def read_shape(config: EstimateConfig) -> Shape:
    """The sizes of the model that a configuration names; no weights are read.

    Raises:
        InputError: when there is no such model, or it is not one that can be used here.
    """
    model = meta_model(config.model, revision=config.revision, trust_remote_code=config.trust_remote_code)
    return shape_of_model(model)


def shape_of_model(model: PreTrainedModel) -> Shape:
    """The sizes of a model with its family's name."""
    return shape_of(model, family_of(model.config.model_type).name)


def estimate(config: EstimateConfig, shape: Shape | None = None) -> list[Estimate]:
    """An estimate for the work that is named, or for each.

    Args:
        config: the settings.
        shape: of the model, where it is known already.

    Raises:
        InputError: for a model that can't be used here, or settings that do not fit it.
    """
    shape = shape or read_shape(config)
    works = WORKS if config.work is None else (config.work,)
    return [_estimated(config, shape, work) for work in works]


def cost_of(config: EstimateConfig, shape: Shape, work: Work, card: Card) -> Cost:
    """What a work costs on such a card."""
    match work:
        case "locate":
            return locating(config, shape, card)
        case "score":
            return scoring(config, shape)
        case "train":
            return training(config, shape)
        case "measure":
            return measuring(config, shape, card)


def _estimated(config: EstimateConfig, shape: Shape, work: Work) -> Estimate:
    card = CARDS[config.gpu]
    cost = cost_of(config, shape, work, card)
    fits = cost.fits(card)
    remedies = () if fits else tuple(_remedies(config, shape, work, card))
    return Estimate(work, cost, cost.seconds(card), fits, remedies)


def _remedies(config: EstimateConfig, shape: Shape, work: Work, card: Card) -> Iterator[str]:
    """Changes that make it fit, each alone, else the first of them together; all are tried by the cost model."""
    changes = list(_changes(config, shape, work))
    alone = [words for words, changed in changes if _fits(config.model_copy(update=changed), shape, work, card)]
    if alone:
        yield from alone
        return
    together: dict[str, object] = {}
    said: list[str] = []
    for words, changed in changes:
        together |= changed
        said.append(words)
        if _fits(config.model_copy(update=together), shape, work, card):
            yield " and ".join(said)
            return
    yield "a card with more memory, or a smaller model"


def _changes(config: EstimateConfig, shape: Shape, work: Work) -> Iterator[tuple[str, dict[str, object]]]:
    """What a person may change, the cheapest first; the settings' names are those of the command that does the work."""
    if work == "train" and not config.checkpointing and not never_whole(config):
        yield "checkpointing: on", {"checkpointing": True}
    if work in ("train", "score") and (config.batch_size or 2) > 1:
        key = "trainer.per_device_train_batch_size=1" if work == "train" else "batch_size: 1"
        yield key, {"batch_size": 1}
    if shape.tower.tile is None and config.vision_tokens is None:
        pixels = 256 * shape.tower.side**2
        if config.max_pixels is None or config.max_pixels > pixels:
            yield f"max_pixels: {pixels}", {"max_pixels": pixels}
    if config.quantize is None:
        yield "quantize: 4bit", {"quantize": "4bit"}
    if config.gpus > 1 and not config.spread and not (work == "train" and config.backward is not None):
        yield ("deepspeed=zero3" if work == "train" else "device_map: auto"), {"spread": True}
    if work == "train" and config.train_layers is None:
        upper = tuple(range(shape.num_layers // 2, shape.num_layers))
        yield f"the upper half of the layers ({upper[0]}-{upper[-1]})", {"train_layers": upper}


def _fits(config: EstimateConfig, shape: Shape, work: Work, card: Card) -> bool:
    return cost_of(config, shape, work, card).fits(card)
