"""Measures the gateway beside its peers: `python -m bench` (see docs/benchmarks.md)."""
