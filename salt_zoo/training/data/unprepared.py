"""Tells before a training how much its text encoder would have to do on the way."""

from __future__ import annotations

from salt_zoo.config.training import TrainingConfig
from salt_zoo.core.protocols import Backbone, Dataset, Method

#: Prompts that a GPU encodes in about a minute; a training that waits longer is told how not to.
MANY = 2000


def unprepared(
    method: Method, backbone: Backbone, dataset: Dataset, config: TrainingConfig
) -> str | None:
    """A line with the command that encodes a training's prompts, where there are `MANY` to encode;
    else None."""
    cost, known = backbone.encode_cost, backbone.encodings
    drawn = config.updates * config.batch_size * len(method.update_order(0))
    if cost is None or drawn <= MANY:
        return None
    new = [one for one in dataset.prompts("train") if known is None or one not in known]
    if len(new) <= MANY or len(new := cost(new)) <= MANY:
        return None
    return (
        f"up to {min(len(new), drawn):,} prompts are encoded on the way, while all processes wait; "
        "to do so once and on all of them, run 'salt-zoo prepare text RUN.yaml --out FOLDER' and "
        "train with --set execution.prepared_text=FOLDER"
    )
