"""How a run is carried out: over which processes and with how much memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from salt_zoo.core.base.config import StrictModel, once

#: Kinds of networks that are never trained themselves.
Offload = Literal["frozen", "averages"]


class ExecutionConfig(StrictModel):
    """How a run is carried out, not what it computes: results differ by rounding only.

    It is no part of a run's identity, so that a run may resume under another execution.
    """

    #: Videos of one forward and backward pass in each process; gradients are accumulated over
    #: `training.batch_size / (micro_batch * processes / sequence)` passes. null takes a process's
    #: whole share in one pass.
    micro_batch: Annotated[int, Field(ge=1, le=10**6)] | None = None
    #: Processes that share one copy of every network, its gradients and optimizer states (FSDP2);
    #: 1 keeps a whole copy in each. `auto` is the GPUs of a node on CUDA, 1 on a CPU.
    shard: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    #: Processes that share the tokens of one video and the heads of its attention and memory
    #: (Ulysses), and so train on the same rows; a divisor of heads, tokens and processes.
    sequence: Annotated[int, Field(ge=1)] = 1
    #: Networks whose weights are kept in main memory and sent to the device block by block in each
    #: pass (FSDP2's CPU offload): `frozen` ones, such as a teacher, and `averages`. Beside LoRAs
    #: `frozen` alone, and only where it is a teacher of another size.
    offload: Annotated[list[Offload], AfterValidator(once)] = Field(default_factory=list)
    #: Recompute activations in the backward pass instead of keeping them.
    gradient_checkpointing: bool = False
    #: What computes attention where no mask is needed, by diffusers' name: `native` (torch's),
    #: `flash`, `_flash_3`, `_native_cudnn`, ... It must be installed, compute the run's precision
    #: on its device, and have a backward pass.
    attention: str = "native"
    #: A folder of `salt-zoo prepare text`: its prompts need no text encoder.
    prepared_text: Path | None = None
