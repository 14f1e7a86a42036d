"""Several processes: copies of a model that average gradients, and parts of parameters as FSDP2 and tensor parallelism make them."""
