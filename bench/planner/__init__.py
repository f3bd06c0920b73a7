"""How right the planner is: held-out rows, intervals, knees, a replayed trace, and what it costs to ask."""
