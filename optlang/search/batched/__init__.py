"""One tensor program that steps many models at once, each with settings of its own."""
