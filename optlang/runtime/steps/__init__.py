"""Steps of every kind: again, with closures, captured, scaled, sparse, released, inside of torch.compile, differentiable."""
