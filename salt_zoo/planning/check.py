"""What of a run can be found wrong before its folder is made and its weights are loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from salt_zoo.core import first_frame
from salt_zoo.core.base.errors import ZooError, did_you_mean
from salt_zoo.core.base.interrupts import is_users
from salt_zoo.core.base.sequence import SequenceGroup
from salt_zoo.core.dataset import check_has_videos
from salt_zoo.core.methods.attention import check_attention
from salt_zoo.core.methods.meta import network_of_role
from salt_zoo.core.methods.roles import check_offload, source, with_lora
from salt_zoo.core.networks.lora import add_lora
from salt_zoo.core.networks.token_sharing import share_tokens
from salt_zoo.core.protocols import Split
from salt_zoo.plugin.isolation.checked_method import make_method
from salt_zoo.plugin.isolation.foreign import ForeignError
from salt_zoo.plugin.manager import Zoo
from salt_zoo.training.state.eight_bit import require_torchao
from salt_zoo.training.state.layout import make_layout

if TYPE_CHECKING:
    from salt_zoo.config.run import Resolved


def check_training(run: Resolved, zoo: Zoo, where: str) -> None:
    """Refuse a run that could not train: one of its updates is made without the networks'
    arithmetic.

    An error of a plugin's code is none of the user's: it is left to the training, which tells it.

    Raises:
        ZooError: the parts do not fit each other, or an option names nothing that there is.
    """
    training = run.config.training
    with _mistakes_only(where):
        alone = run.config.execution.model_copy(update={"shard": "auto", "sequence": 1})
        make_layout(alone, training.batch_size)
    if "wandb" in training.trackers and not importlib.util.find_spec("wandb"):
        raise ZooError(
            f"{where}: training.trackers: wandb is not installed; run: pip install wandb"
        )
    with _mistakes_only(where):
        # checked: an order of updates without an end would never be through
        method = make_method(run.config.method["name"], run.method, zoo)
        backbone = zoo.backbones.create(run.config.backbone["name"], run.backbone, zoo)
        trained = [name for name, role in method.roles().items() if role.learning_rate is not None]
        for name in training.optimizers:
            if name not in trained:
                raise ZooError(
                    f"training.optimizers.{name}: the method trains no network of that name; "
                    f"{did_you_mean(name, trained)}"
                )
            if training.optimizers[name].name == "adamw8bit":
                require_torchao(f"training.optimizers.{name}.name")
        roles = with_lora(method.roles(), training.lora)
        check_offload(roles, run.config.execution.offload, backbone)
        for name, role in roles.items():
            if role.lora is not None:
                network = network_of_role(backbone, replace(role, lora=None))
                add_lora(network, role.lora, f"training.lora.{name}")
        for role in roles.values():
            if role.start is not None:  # the machine where it trains may have more than this one
                whose = source(backbone, role.start)
                check_attention(whose, run.config.execution.attention, "execution.attention", None)
        if (processes := run.config.execution.sequence) > 1:
            for role in method.roles().values():
                if role.start is not None:  # else it is a head, or follows another role
                    shape = backbone.latent_shape
                    share_tokens(network_of_role(backbone, role), SequenceGroup(processes), shape)
        _dry_update(run, zoo)


def check_data(run: Resolved, zoo: Zoo, where: str, measured: Split | None = None) -> None:
    """Refuse a run whose dataset has not what its method needs: one row is read.

    Args:
        measured: the split on whose prompts its students are measured.

    Raises:
        ZooError: there is no such data.
    """
    from salt_zoo.core.base.rng import KeyedRNG, step_rng  # torch takes seconds to import
    from salt_zoo.training.data.origin import make_bound

    with _mistakes_only(where):
        method = zoo.methods.create(run.config.method["name"], run.method, zoo)
        backbone, dataset = make_bound(run, zoo)
        rng = step_rng(run.config.seed, "student", 0, 0, range(1), "cpu")
        image = backbone.image_shape is not None
        sample = dataset.sample(rng.at("data"), "train", method.needs_data or image)
        if method.needs_data:
            check_has_videos(sample)
        if image:
            first_frame.check_sample(backbone, sample)
        if image and measured is not None:
            prompts = dataset.prompts(measured)[:1]
            draws = KeyedRNG(0, ("try",), range(len(prompts)))
            first_frame.check_real(backbone, dataset, prompts, draws, measured)


def _dry_update(run: Resolved, zoo: Zoo) -> None:
    from salt_zoo.planning.dry_runs import dry_run

    try:
        dry = dry_run(run, zoo)
    except BaseException as error:  # not every backbone can be made without weights
        if is_users(error):
            raise
        return
    dry.update(0)


@contextmanager
def _mistakes_only(where: str) -> Iterator[None]:
    """Errors of the user's get their place; those of a plugin's code pass in silence."""
    try:
        yield
    except ZooError as error:
        if error.__cause__ is None and not isinstance(error, ForeignError):
            text = str(error)
            raise type(error)(text if text.startswith(where) else f"{where}: {text}") from None
    except BaseException as error:
        if is_users(error):
            raise
