"""Registers the backbone `self-forcing` and its memories."""

from salt_zoo import hookimpl

_MEMORIES = "salt_zoo_self_forcing.memories"


@hookimpl
def register(zoo):
    zoo.backbones.add(
        "self-forcing",
        "salt_zoo_self_forcing.backbone:SelfForcingBackbone",
        "causal Wan that generates blocks of frames from a KV cache (arXiv 2506.08009)",
    )
    zoo.memories.add(
        "full", f"{_MEMORIES}.full:FullMemory", "all frames, absolute positions (Self Forcing)"
    )
    zoo.memories.add(
        "window",
        f"{_MEMORIES}.window:WindowMemory",
        "a sink and the latest frames, absolute positions (LongLive, arXiv 2509.22622)",
    )
    zoo.memories.add(
        "window-int8",
        f"{_MEMORIES}.window_int8:WindowInt8Memory",
        "a window whose keys and values are stored in int8",
    )
    zoo.memories.add(
        "block-relative",
        f"{_MEMORIES}.block_relative:BlockRelativeMemory",
        "a window whose positions start anew at every block (Infinity-RoPE, arXiv 2511.20649)",
    )
    zoo.memories.add(
        "ema-sink",
        f"{_MEMORIES}.ema_sink:EmaSinkMemory",
        "a window whose sink averages what has left it (Reward Forcing, arXiv 2512.04678)",
    )
