"""Taking money: payment methods, payments, refunds, at whichever provider the operator has chosen."""
