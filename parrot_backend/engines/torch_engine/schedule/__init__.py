"""What each step computes: sequences, the batch scheduler, drafts, and the loop over them."""
