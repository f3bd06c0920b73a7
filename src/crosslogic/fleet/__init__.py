"""Which nodes there are, what they can do, and whether they live."""
