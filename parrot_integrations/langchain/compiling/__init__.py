"""`compile()`: runnables planned by one rule per type, and run natively under observation."""
