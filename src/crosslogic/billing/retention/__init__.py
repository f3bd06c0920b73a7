"""How long rows of the ledger are kept, and what has to have become of them before they go."""
