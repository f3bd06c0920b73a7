"""To whom the invoices of an org are addressed, and on which terms."""
