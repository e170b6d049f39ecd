"""What a run comes from beside its configuration: its parts, their digests and versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from salt_zoo.core.protocols import Backbone, Dataset, Encoded
from salt_zoo.plugin.isolation.checked_method import CheckedMethod, make_method
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.options.option_files import option_files
from salt_zoo.plugin.versions import Versions
from salt_zoo.training.data.prepared_text import PreparedText

if TYPE_CHECKING:
    from salt_zoo.config.run import Resolved


@dataclass(frozen=True)
class Parts:
    """The parts of a run.

    Attributes:
        code: the versions of the code and data of all parts that were looked up for them
            (`salt_zoo.plugin.versions`).
        code_of_inputs: the part of it that backbone and data are made of.
        files_of_method: digests of the files that the method's options name.
    """

    method: CheckedMethod
    backbone: Backbone
    dataset: Dataset
    code: Mapping[str, Any]
    code_of_inputs: Mapping[str, Any]
    files_of_method: Mapping[str, str]

    def inputs(self) -> dict[str, dict[str, str]]:
        """Digests of the weights and the data; reads them. `method` is there if it names files."""
        found = {
            "backbone": dict(self.backbone.fingerprint()),
            "dataset": dict(self.dataset.fingerprint()),
        }
        return found | ({"method": dict(self.files_of_method)} if self.files_of_method else {})


def make_parts(resolved: Resolved, zoo: Zoo, versions: Versions | None = None) -> Parts:
    """Make a run's method, backbone and dataset; `versions` has read the code of some already."""
    from salt_zoo.config.parts import configure_part

    content = resolved.plain()
    versions = versions or Versions(zoo)

    def method() -> tuple[CheckedMethod, dict[str, str]]:
        # configured once more: what parts a part is made of is looked up there
        options = configure_part(zoo.methods, content["method"], zoo, "method")
        return make_method(content["method"]["name"], options, zoo), option_files(options)

    def backbone_and_data() -> tuple[Backbone, Dataset]:
        made = []
        for kind, registry in (("backbone", zoo.backbones), ("dataset", zoo.datasets)):
            options = configure_part(registry, content[kind], zoo, kind)
            name = content[kind]["name"]
            made.append(registry.create(name, options, zoo))
        return made[0], made[1]

    (made, files), of_method = versions.used_by(method)
    (backbone, dataset), of_inputs = versions.used_by(backbone_and_data)
    bind(resolved, backbone, dataset)
    return Parts(made, backbone, dataset, of_method | of_inputs, of_inputs, files)


def make_bound(run: Resolved, zoo: Zoo) -> tuple[Backbone, Dataset]:
    """A run's backbone and dataset, without the versions of their code."""
    backbone = zoo.backbones.create(run.config.backbone["name"], run.backbone, zoo)
    dataset = zoo.datasets.create(run.config.dataset["name"], run.dataset, zoo)
    bind(run, backbone, dataset)
    return backbone, dataset


def bind(run: Resolved, backbone: Backbone, dataset: Dataset) -> None:
    """Give the backbone what was encoded before, wherever it trains, is measured or checked.

    Raises:
        ZooError: other encoders than the backbone's have made it.
    """
    if run.config.execution.prepared_text is not None:
        PreparedText(run.config.execution.prepared_text).bind(backbone)
    if isinstance(dataset, Encoded):
        dataset.bind(backbone)
