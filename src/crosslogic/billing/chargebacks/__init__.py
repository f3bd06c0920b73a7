"""Payments that their payers dispute with their banks: what the provider says, and what follows of it here."""
