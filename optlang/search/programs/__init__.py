"""What a search may write: functions, programs of statements, seeds, templates, and the changes that make one of another."""
