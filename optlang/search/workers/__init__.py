"""Who trains: jobs for processes of this machine or for a Ray cluster, which may die."""
