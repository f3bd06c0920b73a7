"""What arrives and when: rates from users, lengths and burstiness from real traces or from a log of one's own."""
