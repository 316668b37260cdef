"""What chat requests ask for and what answers tell, as the wire has it, for every framework."""
