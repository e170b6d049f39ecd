"""Words and arithmetic that everything else is written in: no room above is imported here."""
