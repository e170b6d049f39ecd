"""What a run trains on, batch by batch."""
