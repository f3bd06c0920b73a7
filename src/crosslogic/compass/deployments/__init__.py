"""Planned deployments and the cluster that runs them."""
