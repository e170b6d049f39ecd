"""What a study would do and need, before anything is done."""
