"""Reaching nodes that nobody can connect to: their agents dial out, and requests travel back over those connections."""
