"""The trainer: it knows roles and turns, never a method's or a backbone's name."""
