"""FinOps: what the nodes cost against what their tokens earn (architecture document §43)."""
