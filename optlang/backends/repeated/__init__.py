"""Steps that are taken again: what one look over all tensors confirms is not gathered anew."""
