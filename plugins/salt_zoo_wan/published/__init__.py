"""The published sizes, with their files and options."""
