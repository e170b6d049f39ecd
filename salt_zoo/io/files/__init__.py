"""Files that are written whole or not at all, by one writer, under seal."""
