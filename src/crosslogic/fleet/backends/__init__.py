"""The inference servers that a node may run: one small file for each, `known.py` for all, `detect.py` to tell them."""
