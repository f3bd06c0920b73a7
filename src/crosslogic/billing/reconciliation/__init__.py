"""Whether all books say the same: ledger, roll-ups, charges, invoices, payments, exports, and the provider's."""
