"""Which of all deployments to take: candidates, their size and cost, what was rejected and why, the best first."""
