"""One job of a study: what decides it, what it does, what it leaves."""
