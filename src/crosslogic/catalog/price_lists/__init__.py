"""Price lists of clouds, read from files as their interfaces give them: readers give rows, `rows.py` checks them."""
