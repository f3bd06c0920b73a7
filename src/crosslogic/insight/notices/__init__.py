"""Notices: raised once, told on every channel that wants them, tried again until they arrive."""
