"""The dialogue: what is asked, understood, specified, and kept, one org apart from another."""
