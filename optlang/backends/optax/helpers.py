"""Functions that a generated optax module carries along where its rule needs them, as text. Each needs JAX alone."""

from __future__ import annotations

import re

HELPERS: dict[str, str] = {
    "_within": '''
def _within(name, value, holds, bounds):
    """Raises ValueError for a setting outside its range. Values that JAX traces, as of schedules, are not looked at."""
    if not isinstance(holds, jax.Array) and not holds:
        raise ValueError(f"{name} is outside {bounds}: {value!r}")
''',
    "_wide": '''
def _wide(x):
    """Low precision is computed in float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
''',
    "_each": '''
def _each(count, function, *lists):
    """A function of every parameter, of which there may be none: a list of each of its results."""
    results = [function(*values) for values in zip(*lists)]
    return [[one[i] for one in results] for i in range(count)]
''',
    "_given": '''
def _given(name, value, tree, params):
    """An input for each parameter: a tree like the parameters, or one number for all."""
    if value is None:
        raise ValueError(f"update needs {name}=...")
    is_one = jax.tree_util.treedef_is_leaf(jax.tree.structure(value))
    values = [value] * len(params) if is_one else tree.flatten_up_to(value)
    return [jnp.broadcast_to(x, w.shape) for x, w in zip(values, params)]
''',
    "_runs": '''
def _runs(x, most):
    """Elements in their order in memory as rows of equal length, the longest of at most so many."""
    length = next(n for n in range(min(most, max(x.size, 1)), 0, -1) if x.size % n == 0)
    return x.reshape(x.size // length, length)
''',
    "_spread": '''
def _spread(x, w):
    """A value for each of `_runs` as one for each element; a number stays one."""
    return jnp.broadcast_to(x, (len(x), w.size // max(len(x), 1))).reshape(w.shape) if jnp.ndim(x) else x
''',
    "_draw": '''
def _draw(distribution, site, place, t, seed, shape, dtype):
    """Draws that depend on the place in the rule, the parameter, the step and the seed alone; the numbers are JAX's own."""
    key = jax.random.key(seed)
    for number in (site, place, t):
        key = jax.random.fold_in(key, number)
    return getattr(jax.random, distribution)(key, shape, dtype)
''',
    "_sign": '''
def _sign(x):
    """-1, 0 or 1; 0 of what is not a number."""
    return jnp.where(jnp.isnan(x), 0, jnp.sign(x))
''',
    "_quantile": '''
def _quantile(x, q, axis=None):
    """The quantile q, in dimensions that are kept with size 1, or of all elements; NaN if any element is."""
    inside = (q >= 0) & (q <= 1)
    return jnp.where(inside, jnp.quantile(x, jnp.clip(q, 0, 1), axis=axis, keepdims=axis is not None), jnp.nan)
''',
    "_window_sum": '''
def _window_sum(window):
    """Sum of the remembered values; NaN marks a place that is still empty."""
    return jnp.nansum(window, axis=0)
''',
    "_window_count": '''
def _window_count(window):
    """How many values are remembered; NaN marks a place that is still empty."""
    return jnp.sum(~jnp.isnan(window), axis=0).astype(window.dtype)
''',
    "_window_mean": '''
def _window_mean(window):
    """Mean of the remembered values; NaN marks a place that is still empty."""
    return jnp.nansum(window, axis=0) / jnp.sum(~jnp.isnan(window), axis=0)
''',
    "_window_amax": '''
def _window_amax(window):
    """The largest remembered value; NaN marks a place that is still empty."""
    empty = jnp.isnan(window)
    return jnp.where(jnp.all(empty, axis=0), jnp.nan, jnp.max(jnp.where(empty, -jnp.inf, window), axis=0))
''',
    "_window_amin": '''
def _window_amin(window):
    """The smallest remembered value; NaN marks a place that is still empty."""
    empty = jnp.isnan(window)
    return jnp.where(jnp.all(empty, axis=0), jnp.nan, jnp.min(jnp.where(empty, jnp.inf, window), axis=0))
''',
    "_window_quantile": '''
def _window_quantile(window, q):
    """The quantile q of the remembered values; NaN marks a place that is still empty."""
    inside = (q >= 0) & (q <= 1)
    return jnp.where(inside, jnp.nanquantile(window, jnp.clip(q, 0, 1), axis=0), jnp.nan)
''',
    "_push": '''
def _push(window, x):
    """The window without its oldest value and with x as its newest."""
    return jnp.concatenate([window[1:], jnp.broadcast_to(x, window.shape[1:])[None].astype(window.dtype)])
''',
    "_finite": '''
def _finite(a):
    """Whether all of a matrix is finite."""
    return jnp.all(jnp.isfinite(a), axis=(-2, -1), keepdims=True)
''',
    "_eigenvectors": '''
def _eigenvectors(a):
    """Of a symmetric matrix: a column each, that of the largest eigenvalue first, its largest element positive; NaN if any is."""
    v = jnp.linalg.eigh(jnp.where(_finite(a), a, 0)).eigenvectors[..., ::-1]
    largest = jnp.take_along_axis(v, jnp.argmax(jnp.abs(v), axis=-2, keepdims=True), axis=-2)
    return jnp.where(_finite(a), jnp.where(largest < 0, -v, v), jnp.nan)
''',
    "_orthonormal": '''
def _orthonormal(a):
    """Q of a = QR, where R has a positive diagonal; NaN if a is anywhere, or has fewer rows than columns."""
    if a.shape[-2] < a.shape[-1]:
        return jnp.full_like(a, jnp.nan)
    q, r = jnp.linalg.qr(jnp.where(_finite(a), a, 0))
    negative = (jnp.diagonal(r, axis1=-2, axis2=-1) < 0)[..., None, :]
    return jnp.where(_finite(a), jnp.where(negative, -q, q), jnp.nan)
''',
    "_descending": '''
def _descending(x):
    """The permutation of columns that puts one value per column in descending order: x @ P."""
    order = jnp.argsort(-jnp.where(jnp.isnan(x), jnp.inf, x), axis=-1, stable=True)
    return jnp.swapaxes(jnp.eye(x.shape[-1], dtype=x.dtype)[order[..., 0, :]], -1, -2)
''',
    "_inverse": '''
def _inverse(a):
    """The inverse of a square matrix; NaN where it has none."""
    found = jnp.linalg.inv(jnp.where(_finite(a), a, 0))
    return jnp.where(_finite(a) & _finite(found), found, jnp.nan)
''',
    "_path_name": '''
def _path_name(path):
    """A parameter's name: the keys on the way to it, with dots between."""
    return jax.tree_util.keystr(path, simple=True, separator=".")
''',
}  # fmt: skip

CALLED = re.compile(r"(?<![\w.])_[a-z]\w*")


def used_by(text: str) -> list[str]:
    """The helpers that a text calls, and those that they call, each after those that it needs."""
    found = {name for name in CALLED.findall(text) if name in HELPERS}
    if found & {"_eigenvectors", "_orthonormal", "_inverse"}:
        found.add("_finite")
    return [name for name in HELPERS if name in found]
