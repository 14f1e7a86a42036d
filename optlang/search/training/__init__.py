"""Tasks, and how programs do on them: batched runs, fitness, the funnel, tuning, profiles."""
