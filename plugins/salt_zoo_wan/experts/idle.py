"""What an expert without a row is given where it must take part in a pass of other processes."""

from __future__ import annotations

from torch import Tensor

from salt_zoo.core.protocols import Condition


def few_tokens(
    x: Tensor, t: Tensor, condition: Condition, patch: tuple[int, int], tokens: int
) -> tuple[Tensor, Tensor, Condition]:
    """The smallest arguments of a pass like that of `x`, `t` and `condition`: one row of one frame.

    A pass of them goes through all weights in the same order, and takes next to nothing: a video of
    81 frames of 480x832 has 32,760 tokens.

    Args:
        x: `[B, C, F, H, W]`, of which the first patch is taken.
        t: `[B]` or `[B, F]`.
        patch: height and width of a token, in latents.
        tokens: how many there are, as many as processes that share them.
    """
    height, width = patch

    def corner(video: Tensor) -> Tensor:
        return video[:1, :, :1, :height, :width].repeat(1, 1, 1, 1, tokens)

    of_one = {name: corner(v) if v.ndim == 5 else v[:1] for name, v in condition.items()}
    return corner(x), t[:1] if t.ndim == 1 else t[:1, :1], of_one
