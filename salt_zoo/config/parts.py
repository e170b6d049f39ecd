"""A registered part as a configuration names it, and its checked options."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator

from salt_zoo.core.base.config import said
from salt_zoo.core.base.errors import reason, shown
from salt_zoo.core.protocols import Composite
from salt_zoo.plugin.isolation.foreign import BrokenPart
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.registration.registry import Registry


def named(part: Any) -> Any:
    """A part that is written as its name alone, as a group of keys."""
    if isinstance(part, str):
        part = {"name": part}
    if not isinstance(part, dict) or "name" not in part:
        raise ValueError("must be a name, or a group of keys with a 'name'")
    if not isinstance(part["name"], str):
        raise said(f"its 'name' must be a text, not {shown(part['name'])}")
    return part


#: A part by name and its options beside it: `{name: dmd, guidance_scale: 4}`, or its name alone.
Part = Annotated[dict[str, Any], BeforeValidator(named)]


def configure_part(registry: Registry, part: Part, zoo: Zoo, where: str) -> BaseModel:
    """The checked options of a part, every default filled in."""
    options = {key: value for key, value in part.items() if key != "name"}
    model = registry.configure(part["name"], options, where)
    factory = registry[part["name"]].load()
    if isinstance(factory, Composite):
        model = factory.complete(model, zoo, where)
    try:
        model.model_dump(mode="json")  # as they stand in run.yaml and in digests
    except Exception as error:
        title = f"{registry.kind} {registry[part['name']]}"
        raise BrokenPart(f"{title}: its options cannot be written ({reason(error)})") from error
    return model
