"""How much one replica carries, and how many are needed: memory, step time, queueing, search in virtual time."""
