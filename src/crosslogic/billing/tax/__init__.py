"""Which taxes an invoice bears: rules as dated data, and a pure function of them."""
