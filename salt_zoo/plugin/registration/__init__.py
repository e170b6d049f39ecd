"""The hooks of plugins, and the parts that they register."""
