"""Where the vision tower and the projector of a model are, by the names of their modules."""

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from vfl.models.discover import Parts


def vision_and_projector(model: PreTrainedModel, parts: Parts) -> tuple[list[str], list[str]]:
    """Names of the modules that are the vision tower, and of those that are the projector (which may stand inside it).

    The projector is what belongs neither to the decoder nor to the tower, and, inside the tower, what follows its
    blocks and ends in the language model's width (the merger of the Qwen families).
    """
    tower, sound = (model.get_encoder(modality=kind) for kind in ("image", "audio"))
    names = {id(module): name for name, module in reversed(list(model.named_modules()))}
    if tower is model or tower is parts.body:  # Transformers' answer where it knows of none
        return [], []
    root = names[id(tower)]
    others = [parts.decoder_name, root, names[id(parts.head)]]
    if sound is not None and sound is not model and sound is not parts.body:  # a config may leave it out
        others.append(names[id(sound)])
    outside = [
        name
        for name, _ in model.named_modules()
        if name and not under(name, others) and not any(under(other, [name]) for other in others)
    ]
    width = model.config.get_text_config(decoder=True).hidden_size
    after_blocks = False
    inside: list[str] = []
    for name, child in tower.named_children():
        if any(isinstance(module, nn.ModuleList) and _attends(module) for module in child.modules()):
            after_blocks = True
        elif after_blocks and any(isinstance(m, nn.Linear) and m.out_features == width for m in child.modules()):
            inside.append(f"{root}.{name}")
    return [root], [*outside, *inside]


def _attends(blocks: nn.ModuleList) -> bool:
    return any("attn" in name or "attention" in name for block in blocks for name, _ in block.named_children())


def under(name: str, roots: Sequence[str]) -> bool:
    """Whether a module is one of these, or inside one, by its name."""
    return any(name == root or name.startswith(f"{root}.") for root in roots)
