"""Which engine a call goes to, and which of its siblings it lets go first."""
