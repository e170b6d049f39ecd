"""G1: the bidirectional Wan network, its residual stream, and clean estimates on two grids."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo_wan.transformer.network import WanNetwork
from tests.parity.goldens import Check, Golden, Skipped, load, video


def transformer_config(config: dict[str, Any]) -> dict[str, Any]:
    """The released code's names of sizes as those of diffusers' `WanTransformer3DModel`."""
    return {
        "patch_size": tuple(config["patch_size"]),
        "num_attention_heads": config["num_heads"],
        "attention_head_dim": config["dim"] // config["num_heads"],
        "in_channels": config["in_dim"],
        "out_channels": config["out_dim"],
        "text_dim": config["text_dim"],
        "freq_dim": config["freq_dim"],
        "ffn_dim": config["ffn_dim"],
        "num_layers": config["num_layers"],
        "cross_attn_norm": config["cross_attn_norm"],
        "qk_norm": "rms_norm_across_heads" if config["qk_norm"] else None,
        "eps": config["eps"],
        "rope_max_seq_len": 1024,
    }


def network(weights: dict[str, Tensor], config: dict[str, Any]) -> WanNetwork:
    """Our network with weights under their original names."""
    from salt_zoo_wan.checkpoint.load import load_transformer

    return WanNetwork(load_transformer(weights, transformer_config(config)).eval())


def check(golden: Golden) -> Iterator[Check | Skipped]:
    file = golden.facts.get("weights_file", f"{golden.name}_weights.safetensors")
    model = network(load(golden.folder / file), golden.facts["config"])
    x, t, condition = golden["in/x"], golden["in/t"] / 1000, {"text": golden["in/context"]}
    with torch.no_grad():
        v = model(x, t, condition)
        yield from golden.compare("out/velocity", v)
        yield from golden.compare("out/velocity_diffusers", v)
        for key in sorted(golden.tensors):
            if found := re.fullmatch(r"out/block(\d+)_output", key):
                depth = int(found[1]) / golden.facts["config"]["num_layers"]
                yield from golden.compare(key, model.features(x, t, condition, depth))
    for shift in (5, 8):
        # the released code multiplies by a sigma that it looks up, not by the time itself
        sigma = flow.nearest_sigma(t, flow.published_sigmas(shift))
        x0 = flow.x0_from_velocity(x, v, sigma)
        yield from golden.compare(f"out/x0_shift{shift}", video(x0))
