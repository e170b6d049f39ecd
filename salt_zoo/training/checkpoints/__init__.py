"""What a run leaves in its folder, and whether it may go on from there."""
