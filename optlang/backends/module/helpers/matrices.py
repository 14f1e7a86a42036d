"""Functions of whole matrices, and sums by columns of tables."""

from __future__ import annotations

TEXTS = {
    "_dense": '''
def _dense(table: Any, column: int, values: list[Any]) -> Any:
    """The sum of some values, each times its number in a column of a table; the number of a last row is added."""
    numbers = [row[column] for row in table]
    total = numbers[0] * values[0]
    for number, value in zip(numbers[1:], values[1:]):
        total = total + number * value
    return total if len(values) == len(numbers) else total + numbers[-1]
''',
    "_eigenvectors": '''
def _eigenvectors(a: torch.Tensor) -> torch.Tensor:
    """Of a symmetric matrix: a column each, that of the largest eigenvalue first, its largest element positive; NaN if any is."""
    finite = a.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    v = torch.linalg.eigh(torch.where(finite, a, 0.0)).eigenvectors.flip(-1)
    largest = v.gather(-2, v.abs().argmax(-2, keepdim=True))
    return torch.where(finite, torch.where(largest < 0, -v, v), torch.nan)
''',
    "_orthonormal": '''
def _orthonormal(a: torch.Tensor) -> torch.Tensor:
    """Q of a = QR, where R has a positive diagonal; NaN if a is anywhere, or has fewer rows than columns."""
    if a.shape[-2] < a.shape[-1]:
        return torch.full_like(a, torch.nan)
    finite = a.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    q, r = torch.linalg.qr(torch.where(finite, a, 0.0))
    negative = (r.diagonal(dim1=-2, dim2=-1) < 0).unsqueeze(-2)
    return torch.where(finite, torch.where(negative, -q, q), torch.nan)
''',
    "_descending": '''
def _descending(x: torch.Tensor) -> torch.Tensor:
    """The permutation of columns that puts one value per column in descending order: x @ P."""
    order = torch.where(x.isnan(), torch.inf, x).argsort(dim=-1, descending=True, stable=True)
    return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)[order.squeeze(-2)].mT
''',
    "_inverse": '''
def _inverse(a: torch.Tensor) -> torch.Tensor:
    """The inverse of a square matrix; NaN where it has none."""
    finite = a.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    found, info = torch.linalg.inv_ex(torch.where(finite, a, 0.0))
    return torch.where(finite & (info == 0)[..., None, None], found, torch.nan)
''',
}  # fmt: skip
