"""A day of a fleet on spot machines, in virtual time."""
