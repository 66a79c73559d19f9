"""Where the image of a row ends and its question begins."""

import torch


def starts_of(ids: torch.Tensor, answers: torch.Tensor, image_token_id: int) -> torch.Tensor:
    """(B,) the token after the last image that stands before a row's first answer; 0 where there is none.

    Args:
        ids: (B, T) tokens.
        answers: (B, T) which of them are answers.
        image_token_id: of every token of an image.
    """
    asked = answers.cumsum(dim=1) == 0
    numbers = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    return ((ids == image_token_id) & asked).mul(numbers).amax(dim=1)
