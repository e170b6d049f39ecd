"""The types of results.json."""
