"""The jobs of a study: planned, matched in cost, run side by side, resumed."""
