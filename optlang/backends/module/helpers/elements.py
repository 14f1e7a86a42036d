"""Real and imaginary parts, and elements that have a gradient, as parameters of their own."""

from __future__ import annotations

TEXTS = {
    "_as_real": '''
def _as_real(param: Any) -> Any:
    """The real and imaginary parts of a complex parameter, (..., 2), in the same memory, with their gradients."""
    parts = torch.view_as_real(param)
    parts.grad = torch.view_as_real(param.grad.resolve_conj())
    return parts
''',
    "_check_sparse": '''
def _check_sparse(param: Any, group: dict[str, Any], why: str) -> None:
    """Raises RuntimeError for a sparse gradient that cannot be taken, or for the reason given."""
    if param.grad.layout != torch.sparse_coo:
        raise RuntimeError(f"a parameter has a gradient of layout {param.grad.layout}, which rules do not take: use a dense one, or "
                           "`torch.sparse_coo`")
    if param.is_complex() or param.layout != torch.strided:
        why = "complex and sparse parameters take dense ones"
    elif group["differentiable"] or group["capturable"]:
        why = "differentiable and capturable steps take dense ones"
    if why:
        raise RuntimeError(f"a parameter has a sparse gradient, and {why}: use a dense one, as with "
                           "`torch.nn.Embedding(…, sparse=False)`")
''',
    "_touched": '''
def _touched(param: Any, state: dict[str, Any], group: dict[str, Any]) -> tuple[Any, dict[str, Any], Callable[[], None]]:
    """The elements that a sparse gradient has, as a parameter of their own with its states, and what puts them back."""
    _check_sparse(param, group, "")
    gradient = param.grad.coalesce()
    places = tuple(gradient.indices())
    touched = param.detach()[places]
    touched.grad = gradient.values()
    own = {name: x[places] if x.ndim and x.shape == param.shape else x for name, x in state.items()}

    def put_back() -> None:
        param.index_put_(places, touched)
        for name, x in own.items():
            if x is not state[name]:
                state[name].index_put_(places, x)

    return touched, own, put_back
''',
}  # fmt: skip
