"""The search itself: populations, one strand, the whole hunt."""
