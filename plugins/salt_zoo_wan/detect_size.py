"""Detecting the registered size of a checkpoint from its tensors' shapes."""

from __future__ import annotations

from pathlib import Path

from salt_zoo.core.base.errors import ZooError
from salt_zoo.plugin.manager import Zoo
from salt_zoo_wan.checkpoint.check import check_state_dict, describe_config, describe_state_dict
from salt_zoo_wan.checkpoint.files import EXPERTS, find_experts
from salt_zoo_wan.checkpoint.identify import identify_checkpoint
from salt_zoo_wan.checkpoint.load import read_state_dict
from salt_zoo_wan.sizes import transformer_config


def detect_size(place: Path, zoo: Zoo, wanted: str | None = None) -> str:
    """The registered size whose transformer has exactly these tensors, by name and shape.

    Args:
        place: as `load_transformer` takes it.
        wanted: the size that the user named, returned as it is; loading checks it.

    Raises:
        ZooError: they are no Wan's, or of no registered size, or of several.
    """
    experts = find_experts(place)
    state = read_state_dict(experts.get(EXPERTS[0], place))
    if wanted:
        return wanted
    fitting: list[str] = []
    sizes: dict[str, str] = {}
    found = describe_state_dict(state)
    for entry in zoo.sizes:
        try:
            options = zoo.sizes.configure(entry.name, {}, "size")
            size = zoo.sizes.create(entry.name, options, zoo)
            config = transformer_config(size)
        except ZooError:
            continue  # a size that has no defaults, or a broken one
        if (size.experts is None) == bool(experts):
            continue  # nothing tells one of two networks from that of another size
        sizes[entry.name] = describe_config(config)
        if found != sizes[entry.name]:
            continue
        try:
            check_state_dict(state, config, str(place))
        except ZooError:
            continue
        fitting.append(entry.name)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " or ".join(f"--size {name}" for name in fitting)
        raise ZooError(f"{place}: fits several sizes; add {names}")
    if kind := identify_checkpoint(state):
        raise ZooError(f"{place}: {kind}; expected a Wan of a known size")
    known = "; ".join(f"{name}: {words}" for name, words in sizes.items())
    if found is None:
        raise ZooError(f"{place}: not a Wan transformer; expected one of a known size ({known})")
    raise ZooError(
        f"{place}: {found}, or of another shape inside, which is no known size ({known}); add "
        "--size NAME with your --set backbone.options"
    )
