"""The rows beside the arms: real videos, and networks that are not distilled."""

from __future__ import annotations

#: Networks that are not distilled, at full steps with guidance: the teacher, and the initial
#: student where students start from a network of another kind (a causal one).
FULL_REFERENCES = ("teacher", "initial")
#: Those with the students' numbers of steps and without guidance: what distillation must beat.
NAIVE_REFERENCES = ("teacher-naive", "initial-naive")
#: The naive ones, and the same with guidance, which doubles their passes.
STEPPED_REFERENCES = (*NAIVE_REFERENCES, "teacher-guided", "initial-guided")
#: Rows that are measured and not trained: those and held-out data.
REFERENCES = ("real", *FULL_REFERENCES, *STEPPED_REFERENCES)
