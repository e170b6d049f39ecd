"""What a launcher leaves in the environment, looked at before anything acts on it.

A variable that was left behind (by the pod of another job, by a script) would make this process a
part of a run that is not there: one of RANK 1 writes nothing, and says nothing.
"""

from __future__ import annotations

import os

from salt_zoo.core.base.errors import ZooError, shown
from salt_zoo.core.base.variables import OFF

_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
#: What torchrun gives a process to meet the others.
_MEETING = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
#: MPI's numbers of processes, by which accelerate would look for others on a CPU.
_MPI = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
#: The variables of accelerate's launcher.
ACCELERATE = "ACCELERATE_"
#: What those begin with that say on which device, or how, it computes.
ACCELERATES_CHOICES = tuple(
    ACCELERATE + what
    for what in (
        *("DEEPSPEED_", "DYNAMO_", "FP8_", "GRADIENT_ACCUMULATION_STEPS", "MIXED_PRECISION"),
        *("TORCH_DEVICE", "USE_"),
    )
)
#: Those that would change what is computed: the values with which they do not, and the key of a
#: run's file that decides instead.
_COMPUTATION = {
    "DYNAMO_BACKEND": (("", "no"), ""),
    "GRADIENT_ACCUMULATION_STEPS": (("", "1"), "execution.micro_batch"),
    "MIXED_PRECISION": (("", "no"), "training.precision"),
    "USE_DEEPSPEED": (OFF, "execution.shard"),
    "USE_FSDP": (OFF, "execution.shard"),
    "USE_MEGATRON_LM": (OFF, "execution.shard"),
    "USE_PARALLELISM_CONFIG": (OFF, "execution.shard"),
}
_HOW = "start several processes with torchrun, and one without this variable"


def check_launch() -> None:
    """Refuse variables of torchrun's that are no numbers, or of no run.

    Raises:
        ZooError: it names the variable.
    """
    for name in _NUMBERS:
        text = os.environ.get(name, "0")
        if not (text.isascii() and text.isdecimal()):
            raise ZooError(f"{name}: {shown(text)} in the environment is no number; {_HOW}")
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world < 1:
        raise ZooError(f"WORLD_SIZE: {world} in the environment is no number of processes; {_HOW}")
    if rank >= world:
        size = f"WORLD_SIZE is {world}" if "WORLD_SIZE" in os.environ else "there is no WORLD_SIZE"
        raise ZooError(f"RANK: {rank} in the environment, and {size}; {_HOW}")


def unused() -> list[str]:
    """Lines about variables of accelerate's launcher that ask for another computation."""
    found = []
    for name, (usual, key) in _COMPUTATION.items():
        value = os.environ.get(ACCELERATE + name, "")
        if value.strip().lower() not in usual:
            instead = f"; {key} of a run decides" if key else ""
            found.append(f"{ACCELERATE}{name}={shown(value)} is not used{instead}")
    return found


def check_meeting() -> None:
    """Refuse a process that is told of others and not where they meet, before a training.

    Raises:
        ZooError: it names what is set, and what is not.
    """
    several = [name for name in ("WORLD_SIZE", *_MPI) if os.environ.get(name, "1") != "1"]
    told = [*several, *(name for name in ("LOCAL_RANK",) if name in os.environ)]
    missing = [name for name in _MEETING if not os.environ.get(name)]
    if told and missing:
        raise ZooError(
            f"{told[0]}: {os.environ[told[0]]} in the environment, and there is no {missing[0]}; "
            f"{_HOW}"
        )
