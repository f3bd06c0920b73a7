"""What is owed and paid: charges, credits, invoices, payments, and their reconciliation."""
