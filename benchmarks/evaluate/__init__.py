"""What is measured of a network, and the files that keep it."""
