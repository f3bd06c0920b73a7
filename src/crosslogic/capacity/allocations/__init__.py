"""Shares of the machines: GPU memory, CPU cores and concurrency (interface document, `ResourceAllocator`)."""
