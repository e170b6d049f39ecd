"""The frame round foreign code: nothing that it does or returns harms anything else."""
