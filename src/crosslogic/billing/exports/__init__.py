"""How usage and invoices reach the payment provider's own books: one way for each org, or none."""
