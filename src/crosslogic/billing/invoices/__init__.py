"""What an org owes, line by line, from the close of a period to the last credit note."""
