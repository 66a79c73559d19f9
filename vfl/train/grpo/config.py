"""The recipe's `grpo` block: what answers are sampled, and what they are rewarded for."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

RewardPart = Literal["right", "readable", "iou"]


class GrpoConfig(BaseModel):
    """Rewards, and fields of TRL's GRPOConfig about sampling and loss (vfl/train/grpo/arguments.py names them)."""

    model_config = ConfigDict(extra="allow")

    rewards: dict[RewardPart, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default={"right": 1.0},
        description="weights of right (the answer matches the row's), readable (it can be read as its kind), iou (of a "
        "box with the right one); their weighted sum is the reward",
    )

    @field_validator("rewards")
    @classmethod
    def _rewards_something(cls, rewards: dict[RewardPart, float]) -> dict[RewardPart, float]:
        weighed = {part: weight for part, weight in rewards.items() if weight > 0}
        if not weighed:
            raise ValueError("no reward has a weight above 0, so no answer would be better than another")
        return weighed

    @property
    def fields(self) -> dict[str, Any]:
        """What goes into TRL's GRPOConfig."""
        return dict(self.__pydantic_extra__ or {})
