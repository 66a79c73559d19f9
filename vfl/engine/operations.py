"""What passes cost: floating-point operations of their matrix products, by the sizes of a model.

Counted as `torch.utils.flop_counter` counts: two per multiply-add, attention without a discount for causality. Norms,
activations and positions are left out. The one cost model: estimates and benchmarks both read it.
"""

from collections.abc import Sequence

from vfl.models.shape import Picture, Shape, TowerShape

# A backward pass through an attention recomputes its scores and then multiplies four times, where the forward pass
# multiplies twice (Dao 2023, arXiv 2307.08691); the counter of PyTorch counts all five.
ATTENTION_BACKWARD = 2.5


def pass_operations(shape: Shape, queries: int, keys: int, *, first: int = 0) -> int:
    """`queries` tokens through the decoder layers from `first` on, each attending to `keys`."""
    return 2 * queries * sum(shape.linear[first:]) + attention_operations(shape, queries, keys, first=first)


def attention_operations(shape: Shape, queries: int, keys: int, *, first: int = 0) -> int:
    """The attention alone: scores and weighted sums."""
    return 4 * queries * keys * shape.attention * (shape.num_layers - first)


def head_operations(shape: Shape, positions: int) -> int:
    """Logits of so many positions."""
    return 2 * positions * shape.hidden * shape.vocabulary


def tower_operations(shape: Shape, picture: Picture) -> int:
    """One picture through the vision tower and the projector."""
    tower = shape.tower
    if tower.tile is not None:
        length = tower.tile + tower.extra
        patches, attended = picture.tiles * length, picture.tiles * length**2 * tower.blocks
    else:
        patches = picture.tokens * tower.patches_per_token
        attended = patches**2 * tower.whole
        if tower.window is not None:
            attended += (tower.blocks - tower.whole) * _in_windows(tower, tower.window, picture)
    tokens = picture.tokens if tower.tile is None else picture.tiles * (tower.tile // tower.patches_per_token)
    return 2 * (patches * tower.per_patch + tokens * tower.per_token) + 4 * attended * tower.width


def relative_step(layers: Sequence[int], num_layers: int, checkpointing: bool = False) -> float:
    """A step's cost in the decoder over that of training all layers: all go forward, those from the lowest on back.

    Backward through frozen weights costs about one forward pass, with checkpointing two. LoRA's own products, which
    shrink with the number of layers, and the vision tower, which no choice changes, are left out.
    """
    back = backward_passes(checkpointing)
    return (num_layers + back * (num_layers - min(layers))) / (num_layers * (1 + back))


def backward_passes(checkpointing: bool) -> int:
    """Forward passes that a layer's way back is worth where its weights are frozen: recomputed, one more."""
    return 2 if checkpointing else 1


def step_operations(
    shape: Shape,
    tokens: int,
    *,
    layers: Sequence[int],
    rank: int,
    logits: int,
    checkpointing: bool = False,
    constant: int = 0,
) -> int:
    """One row of `tokens` forward and backward through the decoder, with LoRA of a rank in attention and MLP.

    Args:
        layers: that are trained, in any order.
        logits: positions whose logits are computed.
        constant: tokens at the row's beginning that go forward alone, before the others.
    """
    after = tokens - constant
    lowest = min(layers)
    back = backward_passes(checkpointing)
    covered = sum(shape.linear[lowest:])
    forward = pass_operations(shape, constant, constant) + pass_operations(shape, after, tokens)
    forward += head_operations(shape, logits)
    # What enters the lowest layer needs no gradient, so its first matrices are not gone back through.
    through = 2 * after * (back * covered - shape.entering)
    attention = attention_operations(shape, after, tokens, first=lowest) * (ATTENTION_BACKWARD + back - 1)
    adapted = sum(shape.lora[layer] for layer in layers)
    adapters = 2 * rank * (tokens * adapted + after * ((1 + back) * adapted - shape.lora_entering))
    return int(forward + through + attention + adapters + head_operations(shape, logits))


def _in_windows(tower: TowerShape, window: int, picture: Picture) -> int:
    """Pairs of patches that see each other, where attention stays in windows cut from the grid's corner on."""
    side = max(1, window // round(tower.patches_per_token**0.5))  # in vision tokens

    def cut(length: int) -> list[int]:
        return [min(side, length - start) for start in range(0, length, side)]

    rows, columns = picture.grid
    return sum((height * width * tower.patches_per_token) ** 2 for height in cut(rows) for width in cut(columns))
