"""What was found as a person would write it, each step proved or measured."""
