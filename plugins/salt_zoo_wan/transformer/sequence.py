"""Sequence parallelism of diffusers' Wan, by hooks: no processor and no copy of the model changes.

Tokens are dealt after the patch embedding and put together after the last projection. Around each
self-attention they are exchanged for heads: after the norms of queries and keys, which are over all
heads, and before the rotation, whose table is that of all tokens. Cross-attention needs nothing:
each process has all of the prompt.

Not diffusers' own context parallelism: it would be a second mechanism beside that of causal
networks, it computes attention once more in each backward pass, its attention has no second or
forward derivative, and of the gradient of the input each process would have a part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.sequence import SequenceGroup


def check_shares(transformer: WanTransformer3DModel, tokens: Iterable[int], processes: int) -> None:
    """Refuse a number of processes that does not divide the heads, or the tokens of a pass.

    Args:
        tokens: of each pass.
    """
    config: Any = transformer.config
    heads: int = config.num_attention_heads
    passes = sorted(set(tokens))
    if heads % processes == 0 and all(count % processes == 0 for count in passes):
        return
    what = (
        f"{heads} attention heads"
        if heads % processes
        else f"the {next(n for n in passes if n % processes)} tokens of a pass"
    )
    fits = [n for n in range(1, heads + 1) if not any(count % n for count in (heads, *passes))]
    words = ", ".join(map(str, fits[:-1])) + " or " * (len(fits) > 1) + str(fits[-1])
    raise ZooError(
        f"execution.sequence: {what} cannot be shared by {processes} processes; write {words}"
    )


def share_sequence(transformer: WanTransformer3DModel, group: SequenceGroup) -> None:
    """Let the processes of `group` make every pass of `transformer` together."""
    model: Any = transformer
    model.patch_embedding.register_forward_pre_hook(_inputs(group))
    model.patch_embedding.register_forward_hook(
        # diffusers flattens what has three dimensions no further
        _output(lambda x: group.own_tokens(x.flatten(2), 2))
    )
    model.condition_embedder.register_forward_pre_hook(_inputs(group, first=1))  # times are dealt
    for block in model.blocks:
        attention = block.attn1
        attention.heads //= group.size
        for layer in (attention.norm_q, attention.norm_k, attention.to_v):
            layer.register_forward_hook(_output(group.to_heads))
        attention.to_out[0].register_forward_pre_hook(_input(group.to_tokens))
    model.proj_out.register_forward_hook(_output(group.all_tokens))


def _inputs(group: SequenceGroup, first: int = 0) -> Callable[..., tuple[Any, ...]]:
    def hook(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        given = [
            group.given_whole(x) if isinstance(x, Tensor) and x.requires_grad else x
            for x in args[first:]
        ]
        return (*args[:first], *given)

    return hook


def _input(change: Callable[[Tensor], Tensor]) -> Callable[..., tuple[Any, ...]]:
    return lambda module, args: (change(args[0]),)


def _output(change: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda module, args, output: change(output)
