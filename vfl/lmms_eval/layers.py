"""A configuration's plan on its model: the layers that are hidden from the text, or those that vision tokens skip."""

from dataclasses import dataclass

from vfl.engine.skip.skip import Skip, skip_by_map
from vfl.errors import InputError
from vfl.io.layers import layer_list
from vfl.lmms_eval.config import LmmsEvalConfig
from vfl.loading.config import map_of
from vfl.models.vlm import VLM


@dataclass(frozen=True)
class LayerPlan:
    """What every question is asked under.

    Attributes:
        hidden: layers at which the text sees no vision tokens, which are computed as ever (`Plan.hide`).
        skip: layers that vision tokens do not run through (`vfl skip`), instead.
    """

    hidden: tuple[int, ...] = ()
    skip: Skip | None = None

    @property
    def words(self) -> str:
        """For a person."""
        if self.skip is not None:
            return self.skip.words
        return f"the image is hidden from the text at layers {layer_list(self.hidden)}" if self.hidden else "no plan"


def plan_of(config: LmmsEvalConfig, vlm: VLM) -> LayerPlan:
    """The plan that a configuration names.

    Raises:
        InputError: for layers that the model does not have, a map of another model or without the functions, or a
            plan that this kind of model can't run.
    """
    num_layers = vlm.num_layers
    if config.hide == "all":
        return LayerPlan(tuple(range(num_layers)))
    if config.hide is not None:
        if outside := [layer for layer in config.hide if layer >= num_layers]:
            raise InputError(f"hide names {outside[0]}; the model has {num_layers} layers: 0 to {num_layers - 1}.")
        return LayerPlan(tuple(config.hide))
    if config.drop is not None:
        if config.drop > num_layers:
            raise InputError(
                f"drop is {config.drop}, a number of last layers; the model has {num_layers}. Give 0 to {num_layers}."
            )
        return LayerPlan(tuple(range(num_layers - config.drop, num_layers)))
    if config.functions:
        assert config.map is not None
        fmap = map_of(vlm, config.map, allow_other_model=config.allow_other_model)
        return LayerPlan(tuple(fmap.layers_of(config.functions)))
    if config.keep:
        assert config.map is not None
        fmap = map_of(vlm, config.map, allow_other_model=config.allow_other_model)
        return LayerPlan(skip=_runnable(vlm, skip_by_map(fmap, config.keep)))
    if config.entry is not None or config.exit is not None:
        end = num_layers if config.exit is None else config.exit
        return LayerPlan(skip=_runnable(vlm, Skip(num_layers, config.entry or 0, end)))
    return LayerPlan()


def _runnable(vlm: VLM, skip: Skip) -> Skip:
    """Said before the first question, and not at it."""
    if not vlm.shares_prefix:
        raise InputError(
            f"{vlm.model_id} ({vlm.family.name}) can't skip layers: its vision states see the question, so they "
            "can't be left out. Give hide or drop, which compute them and hide them from the text."
        )
    return skip
