"""What deployments really do, held against what was forecast, and what is learnt from the difference."""
