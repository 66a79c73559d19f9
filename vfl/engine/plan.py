"""Plans: what the text reads at each layer. Every experiment here is a plan; plans are values and compose."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from vfl.engine.image_cache import ImageCache
from vfl.errors import InputError
from vfl.io.layers import layer_list


@dataclass(frozen=True, eq=False)
class Plan:
    """For each layer, the image cache that the text reads there instead of its own image's.

    Attributes:
        reads: layer -> another image's cache, or None for no vision at all; layers left out read their own.
        name: a label for tables.

    Example:
        >>> plan = Plan.hide([2, 3]) | Plan.swap([5], image_cache)
        >>> sorted(plan.reads)
        [2, 3, 5]
    """

    reads: Mapping[int, ImageCache | None] = field(default_factory=dict)
    name: str = "own"

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", MappingProxyType(dict(self.reads)))

    def __repr__(self) -> str:
        return f"Plan({self.name!r})"

    @classmethod
    def own(cls) -> "Plan":
        """The baseline: its own image everywhere."""
        return cls()

    @classmethod
    def swap(cls, layers: Iterable[int], image_cache: ImageCache) -> "Plan":
        """Visual token swapping (arXiv 2509.24791): another image's keys and values at `layers`."""
        chosen = sorted(set(layers))
        return cls(dict.fromkeys(chosen, image_cache), f"swap {layer_list(chosen)}")

    @classmethod
    def hide(cls, layers: Iterable[int]) -> "Plan":
        """No vision tokens among the keys at `layers`."""
        chosen = sorted(set(layers))
        return cls(dict.fromkeys(chosen, None), f"hide {layer_list(chosen)}")

    @classmethod
    def window(cls, first: int, width: int, image_cache: ImageCache) -> "Plan":
        """Another image at layers first .. first + width - 1."""
        return cls.swap(range(first, first + width), image_cache)

    @classmethod
    def suffix(cls, first: int, image_cache: ImageCache) -> "Plan":
        """Another image from layer `first` on."""
        return cls.swap(range(first, len(image_cache.keys)), image_cache)

    @classmethod
    def prefix(cls, last: int, image_cache: ImageCache) -> "Plan":
        """Another image at layers 0 .. last."""
        return cls.swap(range(last + 1), image_cache)

    def __or__(self, other: "Plan") -> "Plan":
        """Both plans; layers that both change are an error."""
        both = self.reads.keys() & other.reads.keys()
        if both:
            raise InputError(
                f"Both plans change what is read at layers {layer_list(sorted(both))}: {self.name} | {other.name}. "
                "Give each layer one reading."
            )
        return Plan({**self.reads, **other.reads}, f"{self.name} | {other.name}")

    def first_layer(self, num_layers: int) -> int:
        """The lowest layer where this plan differs from the baseline; `num_layers` where it never does.

        Raises:
            InputError: for a layer that the model does not have.
        """
        outside = [layer for layer in self.reads if not 0 <= layer < num_layers]
        if outside:
            raise InputError(
                f"Plan {self.name!r} names layers {outside}, but the model has {num_layers}: 0 to {num_layers - 1}."
            )
        return min(self.reads, default=num_layers)
