"""CDA as a method: SC-DMD whose rollouts are of several step lists."""

from __future__ import annotations

from salt_zoo.rollout.paths import StepLists
from salt_zoo_dmd.method import DMD, DMDConfig


class CDAConfig(DMDConfig):
    """Options of `cda`; the defaults are the paper's (arXiv 2604.03118)."""

    # not a default of the registration: lists that a run names replace these, and do not join them
    steps: StepLists = {8: 0.4, 4: 0.4, 2: 0.2}


class CDA(DMD):
    """DMD with other defaults; the objectives are what differs.

    With K the steps of the list that was drawn, the student's loss is (arXiv 2604.03118)

        L_DMD + 0.2 * L_SC * 1[K = 8] + 0.1 * L_align * 1[K in {2, 4}]

    `L_SC` is `salt_zoo_dmd.semigroup.semigroup_loss`, `L_align` a loss of `salt_zoo_cda.alignment`.
    """

    version = 1
    Config = CDAConfig
