"""What one engine does, found by asking it: each check asks, compares, and tells what it found."""
