"""Quantiles, values of runs of elements, and windows of what was seen before."""

from __future__ import annotations

TEXTS = {
    "_between": '''
def _between(ordered: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """The element at a place of the last dimension; between two elements, linear interpolation."""
    place = place.expand(ordered.shape[:-1])
    low, high = (ordered.gather(-1, f(place).long().unsqueeze(-1)).squeeze(-1) for f in (torch.floor, torch.ceil))
    return torch.where(low == high, low, low + (high - low) * (place - place.floor()))
''',
    "_quantile": '''
def _quantile(x: torch.Tensor, q: Any, dim: tuple[int, ...] | None = None) -> torch.Tensor:
    """The quantile q of all elements, or over dimensions that are kept with size 1; NaN if any element is."""
    rows = x.reshape(-1)
    shape: list[int] = []
    if dim is not None:
        shape = [1 if d - x.ndim in dim else size for d, size in enumerate(x.shape)]
        kept = [d for d in range(x.ndim) if d - x.ndim not in dim]
        rows = x.permute(*kept, *dim).flatten(len(kept))
    q = _alike(q, x)
    ordered = rows.sort(-1).values  # NaNs go last
    undefined = ordered[..., -1].isnan() | ~((q >= 0) & (q <= 1))
    place = q.clamp(0, 1).nan_to_num() * (rows.shape[-1] - 1)
    return torch.where(undefined, torch.nan, _between(ordered, place)).reshape(shape)
''',
    "_run_length": '''
@functools.cache
def _run_length(numel: int, most: int) -> int:
    """The largest divisor of a number of elements that is not above another number."""
    return next(n for n in range(min(most, max(numel, 1)), 0, -1) if numel % n == 0)
''',
    "_runs": '''
def _runs(x: torch.Tensor, most: int) -> torch.Tensor:
    """Elements in their order in memory as rows of equal length, the longest of at most so many."""
    length = _run_length(x.numel(), most)
    return x.reshape(x.numel() // length, length)
''',
    "_spread": '''
def _spread(x: torch.Tensor, param: torch.Tensor) -> torch.Tensor:
    """A value for each of `_runs` as one for each element."""
    if x.ndim == 0:  # the same for all
        return x.expand(param.shape)
    return x.expand(len(x), param.numel() // max(len(x), 1)).reshape(param.shape)
''',
    "_window_sum": '''
def _window_sum(window: torch.Tensor) -> torch.Tensor:
    """Sum of the remembered values; NaN marks a place that is still empty."""
    return window.nansum(0)
''',
    "_window_count": '''
def _window_count(window: torch.Tensor) -> torch.Tensor:
    """How many values are remembered; NaN marks a place that is still empty."""
    return (~window.isnan()).sum(0).to(window.dtype)
''',
    "_window_mean": '''
def _window_mean(window: torch.Tensor) -> torch.Tensor:
    """Mean of the remembered values; NaN marks a place that is still empty."""
    return window.nansum(0) / (~window.isnan()).sum(0)
''',
    "_window_amax": '''
def _window_amax(window: torch.Tensor) -> torch.Tensor:
    """The largest remembered value; NaN marks a place that is still empty."""
    empty = window.isnan()
    return torch.where(empty.all(0), torch.nan, torch.where(empty, -torch.inf, window).amax(0))
''',
    "_window_amin": '''
def _window_amin(window: torch.Tensor) -> torch.Tensor:
    """The smallest remembered value; NaN marks a place that is still empty."""
    empty = window.isnan()
    return torch.where(empty.all(0), torch.nan, torch.where(empty, torch.inf, window).amin(0))
''',
    "_window_quantile": '''
def _window_quantile(window: torch.Tensor, q: Any) -> torch.Tensor:
    """The quantile q of the remembered values; NaN marks a place that is still empty."""
    filled = (~window.isnan()).sum(0)
    q = _alike(q, window)
    undefined = (filled == 0) | ~((q >= 0) & (q <= 1))
    place = q.clamp(0, 1).nan_to_num() * (filled - 1).clamp(min=0)
    ordered = window.sort(0).values.movedim(0, -1)  # NaNs go last
    return torch.where(undefined, torch.nan, _between(ordered, place.to(window.dtype)))
''',
    "_push": '''
def _push(window: torch.Tensor, x: Any) -> torch.Tensor:
    """The window without its oldest value and with x as its newest."""
    return torch.cat([window[1:], _alike(x, window).expand(window.shape[1:]).unsqueeze(0)])
''',
}  # fmt: skip
