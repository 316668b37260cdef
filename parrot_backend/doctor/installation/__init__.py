"""What this installation is missing: each check looks at one thing and says what to do about it."""
