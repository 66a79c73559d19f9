"""What the blocks of a recipe have in common."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A block of a recipe."""

    # protected_namespaces: `model` and its like are keys here, not pydantic's.
    model_config = ConfigDict(extra="forbid", protected_namespaces=())
