"""Which registered size some weights are of, told from their shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from salt_zoo.core.errors import ZooError
from salt_zoo_wan.recognise import kind_of
from salt_zoo_wan.size import transformer_config
from salt_zoo_wan.weights import check_state, found_size, read_state, size_in_words


def size_of(place: Path, zoo: Any, wanted: str | None = None) -> str:
    """The size whose transformer has tensors of just these names and shapes.

    Args:
        place: as `load_original` takes it.
        wanted: the size that the user has named; it is kept, and checked when it is loaded.

    Raises:
        ZooError: they are no Wan's, or of no registered size, or of several.
    """
    state = read_state(place)
    if wanted:
        return wanted
    fitting: list[str] = []
    sizes: dict[str, str] = {}
    found = found_size(state)
    for entry in zoo.sizes:
        try:
            options = zoo.sizes.configure(entry.name, {}, "size")
            config = transformer_config(zoo.sizes.create(entry.name, options, zoo))
        except ZooError:
            continue  # a size that has no defaults, or a broken one
        sizes[entry.name] = size_in_words(config)
        if found != sizes[entry.name]:
            continue
        try:
            check_state(state, config, str(place))
        except ZooError:
            continue
        fitting.append(entry.name)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " or ".join(f"--size {name}" for name in fitting)
        raise ZooError(f"{place}: fits several sizes; add {names}")
    if kind := kind_of(state):
        raise ZooError(f"{place}: {kind}; expected a text-to-video Wan")
    known = "; ".join(f"{name}: {words}" for name, words in sizes.items())
    if found is None:
        raise ZooError(f"{place}: not a Wan transformer; expected one of a known size ({known})")
    raise ZooError(
        f"{place}: {found}, or of another shape inside, which is no known size ({known}); add "
        "--size NAME with your --set backbone.options"
    )
