"""Program search over rules, as the search that found Lion did it (Chen et al. 2023, arXiv:2302.06675), on one machine or many."""
