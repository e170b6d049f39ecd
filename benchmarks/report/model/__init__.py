"""What a report shows, as values and as text."""
