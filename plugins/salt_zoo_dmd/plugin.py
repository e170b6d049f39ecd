"""Registers DMD, SC-DMD, their objectives and the semigroup defect."""

from salt_zoo import hookimpl


@hookimpl
def register(zoo):
    dmd = "salt_zoo_dmd.method:DMD"
    zoo.methods.add(
        "dmd",
        dmd,
        "distribution matching on the student's own rollouts (arXiv 2405.14867, 2506.08009)",
        objectives={"distribution-matching": {}},
    )
    zoo.methods.add(
        "sc-dmd",
        dmd,
        "DMD and the semigroup-defect regulariser, on the 8-step list (Salt, arXiv 2604.03118)",
        steps=8,
        objectives={"distribution-matching": {}, "self-consistency": {}},
    )
    zoo.objectives.add(
        "distribution-matching",
        "salt_zoo_dmd.objectives:DistributionMatching",
        "difference of real and fake score on noised outputs",
    )
    zoo.objectives.add(
        "self-consistency",
        "salt_zoo_dmd.objectives:SelfConsistency",
        "semigroup defect at the exit step: one long step against two shorter ones",
    )
    zoo.metrics.add(
        "semigroup-defect",
        "salt_zoo_dmd.defect:SemigroupDefect",
        "how far long steps are from composed shorter ones, over the displacement",
    )


@hookimpl
def training_started(config):
    from salt_zoo_dmd.never_due import self_consistency, warn

    warn(config, "self-consistency", self_consistency)
