"""Interfaces between methods, backbones, memories, data sets and metrics, and what their authors
need beside, to import from one place.

Each is written down in its own file: methods/method.py, networks/network.py, networks/backbone.py,
dataset.py, metric.py.
Protocols, not base classes. Shapes: videos and latents `[B, C, F, H, W]`, times `[B]` or `[B, F]`
in [0, 1] with 1 = noise. All times are the network's own, that is, already shifted;
`flow.step_list(n, shift)` is the list of an n-step student, in training and at evaluation.
"""

from salt_zoo.core.base.config import Composite, Steps, StrictModel
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.dataset import (
    Dataset,
    DrawsPrompts,
    Encoded,
    EncodedFirstFrames,
    HoldsLatents,
    Sample,
    Split,
)
from salt_zoo.core.methods.method import (
    Batch,
    Method,
    NeedsTrajectories,
    NetworkObjective,
    NetworkSpec,
    Objective,
    Stateful,
    TrainStep,
)
from salt_zoo.core.metric import Direction, Metric, MetricDefaults, MetricKind
from salt_zoo.core.networks.backbone import (
    Backbone,
    BackboneDefaults,
    Encoder,
    Encodings,
    Exportable,
    ExportsLora,
    LoadsSlices,
    Recognises,
    Start,
    StoredWeights,
)
from salt_zoo.core.networks.blocks import Blocks, ExitStep, RolloutPath
from salt_zoo.core.networks.network import (
    AttentionUse,
    Checkpointable,
    ChoosesAttention,
    ComparableMemory,
    Condition,
    FeatureExtractor,
    MaskedForward,
    Memory,
    SequenceParallel,
    VelocityNetwork,
)

__all__ = [
    "AttentionUse",
    "Backbone",
    "BackboneDefaults",
    "Batch",
    "Blocks",
    "Checkpointable",
    "ChoosesAttention",
    "ComparableMemory",
    "Composite",
    "Condition",
    "Dataset",
    "Direction",
    "DrawsPrompts",
    "Encoded",
    "EncodedFirstFrames",
    "Encoder",
    "Encodings",
    "ExitStep",
    "Exportable",
    "ExportsLora",
    "FeatureExtractor",
    "HoldsLatents",
    "LoadsSlices",
    "MaskedForward",
    "Memory",
    "Method",
    "Metric",
    "MetricDefaults",
    "MetricKind",
    "NeedsTrajectories",
    "NetworkObjective",
    "NetworkSpec",
    "Objective",
    "Recognises",
    "RolloutPath",
    "Sample",
    "SequenceParallel",
    "Split",
    "Start",
    "Stateful",
    "Steps",
    "StoredWeights",
    "StrictModel",
    "TrainStep",
    "VelocityNetwork",
    "ZooError",
]
