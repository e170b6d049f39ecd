"""Saved students: the weights, and beside them what made them and the digests of all files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.files.seals import Damaged, check_files, file_digests, read_sealed, write_sealed
from salt_zoo.io.files.storage import atomic_folder
from salt_zoo.training.remembered import sampling_of

if TYPE_CHECKING:
    from torch import nn

    from salt_zoo.config.run import Resolved
    from salt_zoo.training.trainer import Trainer

#: The configuration, the costs and the digests.
RECORD = "salt_zoo.json"


def save_student(trainer: Trainer, resolved: Resolved, folder: Path) -> Path:
    """Save the trained student, with the configuration that made it beside it.

    Of a distributed run all processes must call it; the first one writes.
    """
    from salt_zoo.io.distributed import on_main  # imports torch

    network = trainer.networks.whole_network()
    return on_main(lambda: _save(network, trainer, resolved, folder))


def _save(network: nn.Module | None, trainer: Trainer, resolved: Resolved, folder: Path) -> Path:
    from salt_zoo.core.networks.lora import lora_layers, merged
    from salt_zoo.core.protocols import ExportsLora

    assert network is not None  # it is the first process
    with atomic_folder(folder) as draft:
        trainer.backbone.save(merged(network), draft)
        if lora_layers(network) and isinstance(trainer.backbone, ExportsLora):
            trainer.backbone.save_lora(network, draft)
        record = {
            "run": resolved.plain(),
            "cost": trainer.cost(),
            "sampling": sampling_of(resolved.method),
            "files": file_digests(draft),
        }
        write_sealed(draft / RECORD, record)
    return folder


def check_student(folder: Path) -> Path:
    """The same folder, if its files are those that were saved; of students of older versions,
    which have no digests, nothing is known.

    Raises:
        ZooError: a file has changed or is missing.
    """
    path = folder / RECORD
    try:
        record = read_sealed(path)
        if "files" in record:
            check_files(folder, record["files"])
    except Damaged as damage:
        hint = (
            "; if it was changed on purpose, delete its key 'digest'" if damage.path == path else ""
        )
        raise ZooError(
            f"{damage.path}: damaged ({damage.why}); save the student again by running its "
            f"'salt-zoo train' command once more{hint}"
        ) from None
    return folder
