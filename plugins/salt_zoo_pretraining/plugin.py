"""Registers the method `teacher-forcing`."""

from salt_zoo import hookimpl


@hookimpl
def register(zoo):
    zoo.methods.add(
        "teacher-forcing",
        "salt_zoo_pretraining.teacher_forcing:TeacherForcing",
        "flow matching on real latents, every block given the clean past (arXiv 2602.02214); "
        "on a bidirectional backbone this is plain flow matching, how a teacher is pretrained",
    )
