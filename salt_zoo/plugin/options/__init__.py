"""Options of plugins as their authors wrote them: documentation, files that they name."""
