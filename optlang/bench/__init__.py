"""Steps timed side by side: a rule's backends, the same optimizer of other packages, and the floor that memory sets."""
