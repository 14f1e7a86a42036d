"""Two rules beside each other: the same or not, and what differs."""
