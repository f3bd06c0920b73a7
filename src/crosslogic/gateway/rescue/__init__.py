"""What becomes of a stream that broke when its caller has seen a part of it."""
