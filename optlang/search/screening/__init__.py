"""What is known of a program before it is trained: the same in other words, the same in what it does, no descent."""
