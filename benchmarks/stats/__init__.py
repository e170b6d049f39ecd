"""From scores to intervals, comparisons and verdicts."""
