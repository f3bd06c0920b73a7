"""What the requests that run now have used so far, by org, environment and key: counters that move during a stream."""
