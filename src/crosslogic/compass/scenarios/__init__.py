"""What if: another model, GPU, target, traffic, quantisation or region; compared side by side, and how sure that is."""
