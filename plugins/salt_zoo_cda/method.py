"""CDA as a method: SC-DMD whose rollouts are of several step lists."""

from __future__ import annotations

from salt_zoo.rollout.paths import StepLists
from salt_zoo_dmd.method import DMD, DMDConfig


class CDAConfig(DMDConfig):
    """Options of `cda`; the defaults are the paper's (arXiv 2604.03118)."""

    # not a default of the registration: lists that a run names replace these, and do not join them
    steps: StepLists = {8: 0.4, 4: 0.4, 2: 0.2}


class CDA(DMD):
    """DMD with other defaults; the objectives are what differs."""

    version = 1
    Config = CDAConfig
