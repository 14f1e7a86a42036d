"""What generated kernels have in common, in whatever language: passes over chunks, what they hand out, how they are compiled."""
