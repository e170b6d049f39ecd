"""The trainer: it knows roles and updates, never a method's or a backbone's name."""
