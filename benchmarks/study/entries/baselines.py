"""Baselines: real videos, and undistilled networks. They are measured and not trained."""

from __future__ import annotations

#: Undistilled networks at full steps with guidance: the teacher, and the initial student where
#: students start from a network of another kind (a causal one).
FULL_BASELINES = ("teacher", "initial")
#: With the students' numbers of steps and without guidance: what distillation must beat.
NAIVE_BASELINES = ("teacher-naive", "initial-naive")
#: The naive ones, and the same with guidance, which doubles their passes.
STEPPED_BASELINES = (*NAIVE_BASELINES, "teacher-guided", "initial-guided")
BASELINES = ("real", *FULL_BASELINES, *STEPPED_BASELINES)
