"""What is kept on disk for the next process: rules as programs, and what compilers have made."""
