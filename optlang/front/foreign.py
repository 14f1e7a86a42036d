"""What people write out of habit from other languages, and how it is said here. Data for `scan` and `advice`."""

from __future__ import annotations

from typing import NamedTuple


class Sign(NamedTuple):
    """A foreign sign: the code of its message, the sign that is meant (empty: none), what is said, what to do."""

    code: str
    meant: str
    message: str
    help: str


def _operator(sign: str, meant: str) -> Sign:
    return Sign("S08", meant, f"`{sign}` is not an operator of this language", f"write `{meant}`")


UPDATE = "an equation gives the new value from the old one: "


def _update(sign: str) -> Sign:
    return Sign("S09", "=", f"`{sign}` is not an assignment of this language", f"{UPDATE}`m' = m {sign[0]} …`")


SIGNS: dict[str, Sign] = {
    "**": Sign("S08", "^", "`**` is not an operator of this language", "powers are written `x^2`"),
    "&&": _operator("&&", "and"),
    "||": Sign("S08", "or", "`||` is not an operator of this language", "write `or` between truth values, `norm(x)` for a norm"),
    "&": _operator("&", "and"),
    "|": Sign("S08", "or", "`|` is not an operator of this language", "write `or` between truth values, `abs(x)` for a size"),
    "!": _operator("!", "not"),
    "~": _operator("~", "not"),
    "%": Sign("S08", "*", "`%` is not an operator of this language", "a remainder is written `mod(a, b)`; comments begin with `#`"),
    "<>": _operator("<>", "!="),
    "===": _operator("===", "=="),
    "×": _operator("×", "*"),
    "·": _operator("·", "*"),
    "⋅": _operator("⋅", "*"),
    "∗": _operator("∗", "*"),
    "⊙": _operator("⊙", "*"),
    "∘": _operator("∘", "*"),
    "⊗": Sign("S08", "*", "`⊗` is not an operator of this language", "write `*`: rows times columns are spread over the elements"),
    "÷": _operator("÷", "/"),
    "∕": _operator("∕", "/"),
    "−": Sign("S08", "-", "this is a typographic minus, `−`", "write the hyphen of the keyboard, `-`"),
    "–": Sign("S08", "-", "this is a dash, `–`", "write the hyphen of the keyboard, `-`"),
    "—": Sign("S08", "-", "this is a dash, `—`", "write the hyphen of the keyboard, `-`"),
    "≤": _operator("≤", "<="),
    "≥": _operator("≥", ">="),
    "≠": _operator("≠", "!="),
    "∧": _operator("∧", "and"),
    "∨": _operator("∨", "or"),
    "¬": _operator("¬", "not"),
    "√": Sign("S08", "", "`√` is not an operator of this language", "write `sqrt(x)`"),
    "∑": Sign("S08", "", "`∑` is not an operator of this language", "write `sum(x)`, or `sum(x per row)`"),
    "⟨": Sign("S08", "(", "`⟨` is not a bracket of this language", "a product of vectors is written `dot(a, b)`"),
    "⟩": Sign("S08", ")", "`⟩` is not a bracket of this language", "a product of vectors is written `dot(a, b)`"),
    "∞": Sign("S08", "inf", "`∞` is not a number of this language", "write `inf`"),
    "+=": _update("+="),
    "-=": _update("-="),
    "*=": _update("*="),
    "/=": _update("/="),
    "^=": _update("^="),
    "@=": _update("@="),
    "**=": Sign("S09", "=", "`**=` is not an assignment of this language", "an equation gives the new value: `m' = m^2`"),
    ":=": Sign("S09", "=", "`:=` is not an assignment of this language", "write `=`"),
    "<-": Sign("S09", "=", "`<-` is not an assignment of this language", "write `=`; a comparison with a negative number needs a space"),
    "←": Sign("S09", "=", "`←` is not an assignment of this language", "write `=`"),
    ";": Sign("S14", "", "no `;` is needed here", "line breaks and semicolons mean nothing; leave it out"),
}  # fmt: skip

SMART_PRIMES = "’′‘`´ʹ"
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789", strict=True))
TRANSPOSED = "ᵀ⊤"

LIBRARIES = frozenset(["torch", "np", "numpy", "math", "jnp", "jax", "tf", "F", "nn", "scipy", "sp", "sympy", "tl", "lax"])
OWNERS = frozenset(["self", "cls", "group", "this", "param_group", "state", "defaults", "args", "config", "cfg", "opt"])

# functions of other libraries -> what to write here
SAID_HERE: dict[str, str] = {
    "clamp": "clip(x, low, high)", "clamp_": "clip(x, low, high)", "maximum": "max(a, b)", "minimum": "min(a, b)",
    "pow": "a^b", "power": "a^b", "mm": "a @ b", "matmul": "a @ b", "bmm": "a @ b", "dot": "dot(a, b)", "einsum": "a @ b",
    "zeros_like": "0", "zeros": "0", "ones_like": "1", "ones": "1", "rand": "uniform()", "rand_like": "uniform()",
    "randn": "normal()", "randn_like": "normal()", "add": "a + b", "sub": "a - b", "mul": "a*b", "div": "a/b",
    "neg": "-x", "negative": "-x", "rsqrt": "1/sqrt(x)", "linalg": "norm(x)", "t": "x.T", "mT": "x.T", "transpose": "x.T",
    "item": "x", "clone": "x", "detach": "x", "grad": "g", "data": "w", "lerp": "ema(a, b, beta)` of `std",
    "addcmul": "a + c*x*y", "addcdiv": "a + c*x/y", "amax": "max(x)", "amin": "min(x)", "absolute": "abs(x)",
    "fabs": "abs(x)", "sigmoid": "1/(1 + exp(-x))", "relu": "max(x, 0)", "softplus": "log1p(exp(x))", "e": "exp(1)",
    "size": "rows, cols or numel", "shape": "rows, cols or numel", "numel": "numel", "ndim": "rank", "dim": "rank",
    "square": "x^2", "sgn": "sign(x)", "arctan2": "atan2(y, x)", "remainder": "mod(a, b)", "fmod": "mod(a, b)",
    "qr": "orthonormal(x)", "eigh": "eigenvectors(x)", "inv": "inverse(x)",
    "ln": "log(x)", "log_e": "log(x)", "exp10": "10^x", "trunc": "sign(x)*floor(abs(x))", "hypot": "sqrt(a^2 + b^2)",
    "heaviside": "where(x > 0, 1, 0)", "copysign": "abs(a)*sign(b)", "softmax": "exp(x)/sum(exp(x))", "isinf": "abs(x) == inf",
    "avg": "mean(x)", "average": "mean(x)", "variance": "var(x)", "stdev": "std(x)", "len": "count(x)", "trace": "sum(eye(rows)*x)",
    "Σ": "sum(x)", "l2norm": "norm(x)", "norm2": "norm(x)", "frobenius": "norm(x)", "linf": "max(abs(x))",
    **dict.fromkeys(["l1", "l1norm", "norm1"], "sum(abs(x))"),
    "any": "max(where(c, 1, 0)) > 0", "all": "min(where(c, 1, 0)) > 0", "logical_and": "a and b", "logical_or": "a or b",
    "logical_not": "not c", "ifelse": "where(c, a, b)", "if_else": "where(c, a, b)", "select": "where(c, a, b)", "cond": "where(c, a, b)",
    "if": "where(c, a, b)", "hadamard": "a*b", "ns": "newton_schulz(x)` of `std",
    "random": "uniform()", "gauss": "normal()", "noise": "normal()", "bernoulli": "where(uniform() < p, 1, 0)",
    "dropout": "where(uniform() < p, 0, x)", "hessian": "hvp(x)", "eig": "eigenvectors(x)",
    "bias_correction": "debias(m, beta)` of `std",
    **dict.fromkeys(["clip_by_global_norm", "clip_grad_norm", "clip_grad_norm_", "clip_norm"], "clip_global(x, limit)` of `std"),
    **dict.fromkeys(["clamp_min", "clip_min"], "max(x, low)"), **dict.fromkeys(["clamp_max", "clip_max"], "min(x, high)"),
    "subtract": "a - b", "multiply": "a*b", "divide": "a/b", "safe_div": "a/max(b, 1e-12)", "cube": "x^3", "pow2": "x^2",
    **dict.fromkeys(["silu", "swish"], "x/(1 + exp(-x))"), "softsign": "x/(1 + abs(x))", "logsumexp": "log(sum(exp(x)))",
    "log_softmax": "x - log(sum(exp(x)))", "nan_to_num": "where(isfinite(x), x, 0)",
    "sum_of_squares": "sum(x^2)", **dict.fromkeys(["mean_abs", "abs_mean"], "mean(abs(x))"), "rms_norm": "x/rms(x)",
    **dict.fromkeys(["frob", "fro", "frobenius_norm", "vector_norm", "matrix_norm"], "norm(x)"), "standardize": "(x - mean(x))/std(x)",
    **dict.fromkeys(["inner", "dot_product"], "dot(a, b)"), "gaussian": "normal()", "randint": "floor(10*uniform())",
    **dict.fromkeys(["cos_sim", "cosine_similarity"], "dot(a, b)/(norm(a)*norm(b))"), "gumbel": "-log(exponential())",
    "cauchy": "tan(pi*(uniform() - 0.5))",
    **dict.fromkeys(["ema_update", "exponential_moving_average", "moving_average"], "ema(m, x, beta)` of `std"),
    **dict.fromkeys(["bias_correct", "correct_bias"], "debias(m, beta)` of `std"),
    **dict.fromkeys(["cosine_schedule", "cosine_annealing", "cosine_decay"], "cosine(t, lr, total)` of `std"),
    **dict.fromkeys(["msign", "polar", "zeropower_via_newtonschulz5", "newtonschulz5", "ns5"], "orthogonalize(x)` of `std"),
    **dict.fromkeys(["hessian_vector_product", "hess"], "hvp(x)"), "stop_gradient": "x",
    "diagonal": "sum(eye(rows)*x per row)", **dict.fromkeys(["solve", "lstsq"], "inverse(a) @ b"),
    "clip_by_norm": "x*min(1, limit/(norm(x) + 1e-6))", "clip_by_value": "clip(x, low, high)",
    "normalize": "x/norm(x)", "outer": "a*b", "median": "quantile(x, 0.5)", "percentile": "quantile(x, q)", "quantile": "quantile(x, q)",
}  # fmt: skip

# what other libraries have and no expression here does -> what to do
NOT_HERE: dict[str, str] = {
    **dict.fromkeys(["argmax", "argmin", "argsort", "sort", "topk", "cumsum", "cumprod"],
                    "values have no places and no order here: a threshold is `quantile(x, q)`, the largest `max(x)`"),
    "diag": "of a matrix the diagonal is `sum(eye(rows)*x per row)`; the matrix with a column on its diagonal is `eye(rows)*x`",
    **dict.fromkeys(["matrix_power", "fractional_matrix_power", "sqrtm", "matrix_root", "matrix_sqrt", "inverse_root"],
                    "a power p of a symmetric x is `(q*e^p) @ q.T` with `q = eigenvectors(x)` and `e = sum(q*(x @ q) per col)`"),
    **dict.fromkeys(["eigenvalues", "eigvals", "eigvalsh", "svdvals", "spectral_norm", "nuclear_norm"],
                    "eigenvalues of a symmetric x are `sum(q*(x @ q) per col)` with `q = eigenvectors(x)`; squares of singular values "
                    "are those of `x.T @ x`"),
    "kron": "a Kronecker product acts on a matrix as `a @ x @ b.T`",
    **dict.fromkeys(["prev", "previous", "lag", "delay"],
                    "what is kept for the next step is a state: `state last = 0`, `last' = x`, and `last` is the old value"),
    "threshold": "write `where(abs(x) > limit, x, 0)`", "mask": "write `where(c, x, 0)`", "unit": "write `x/norm(x)`",
    "warmup": "write `linear_warmup(t, lr, n)` of `std`",
    **dict.fromkeys(["reshape", "view", "flatten", "squeeze", "unsqueeze", "expand", "broadcast", "broadcast_to", "repeat_interleave"],
                    "no shape is changed: a coarse value is spread by itself, and `as_matrix(x)` makes a convolution a matrix"),
    **dict.fromkeys(["permutation", "randperm", "shuffle", "choice"], "columns in random order are `x @ descending(uniform(per col))`"),
    "svd": "`eigenvectors(x @ x.T)` are the left singular vectors of x; `orthogonalize(x)` of `std` makes all singular values about 1",
    **dict.fromkeys(["prod", "product"], "there is no product of all values; of positive ones it is `exp(sum(log(x)))`"),
}  # fmt: skip

# words that begin statements elsewhere -> (the keyword that is meant, or empty; what to do)
STATEMENTS: dict[str, tuple[str, str]] = {
    "if": ("when", "a branch is `when cond { … } else { … }`; `where(c, a, b)` chooses element by element"),
    "elif": ("", "nest it: `else { when cond { … } }`"),
    "elseif": ("", "nest it: `else { when cond { … } }`"),
    "for": ("", "equations hold for all elements at once; `repeat n { … }` is a loop with a fixed number of turns"),
    "while": ("", "there are no open-ended loops; `repeat n { … }` is a loop with a fixed number of turns"),
    "loop": ("repeat", "a loop is `repeat n { … }`"),
    "switch": ("", "use `when cond { … } else { … }`"),
    "match": ("", "use `when cond { … } else { … }`"),
    "lambda": ("", "define it by name at the top level: `def f(x) = …`"),
    "with": ("", "no context is needed; write the equations alone"),
    "try": ("", "there are no exceptions; `where(isfinite(x), x, 0)` replaces values that are not finite"),
    "assert": ("", "legal values of a setting are its range: `hyper eps = 1e-8 in [0, inf)`"),
    "print": ("", "`report name = …` gives a scalar to the training loop"),
    "pass": ("", "leave it out; an empty block is `{ }`"),
    "del": ("", "nothing is deleted; a name is an equation, not storage"),
    "yield": ("return", "a function ends with `return expr`"),
    "let": ("", "no word is needed: `x = …`"),
    "var": ("", "no word is needed: `x = …`; memory between steps is `state x = 0`"),
    "val": ("", "no word is needed: `x = …`"),
    "const": ("", "no word is needed: `x = …`; a setting is `hyper x = …`"),
    "auto": ("", "no word is needed: `x = …`"),
    "float": ("hyper", "a setting is `hyper lr = 1e-3`"),
    "int": ("", "a setting is `hyper int k = 10`"),
    "bool": ("", "a setting is `hyper bool nesterov = false`"),
    "param": ("hyper", "a setting is `hyper lr = 1e-3`"),
    "parameter": ("hyper", "a setting is `hyper lr = 1e-3`; the parameter itself is `w`"),
    **dict.fromkeys(["setting", "hyperparameter", "hyperparam"], ("hyper", "a setting is `hyper lr = 1e-3`")),
    "buffer": ("state", "memory kept between steps is `state m = 0`"),
    "memory": ("state", "memory kept between steps is `state m = 0`"),
    "function": ("def", "a function is `def f(x) = expr`"),
    "func": ("def", "a function is `def f(x) = expr`"),
    "fn": ("def", "a function is `def f(x) = expr`"),
    "class": ("rule", "an optimizer is `rule Name { … }`"),
    "optimizer": ("rule", "an optimizer is `rule Name { … }`"),
    "use": ("", "`use` belongs to the branches of a `route`: `when cond use Rule()`"),
    "import": ("", "imports are written `from std import ema`"),
    "output": ("report", "`report name = …` gives a scalar to the training loop"),
    "async": ("", "leave it out"),
    "global": ("", "leave it out; every name of the rule is visible in its blocks"),
}  # fmt: skip
WEIGHTS = frozenset(["theta", "θ", "x", "p", "param", "params", "parameter", "weight", "weights"])
# what `per` is followed by elsewhere -> the word for it
EXTENTS: dict[str, str] = {
    **dict.fromkeys(["column", "columns"], "col"), **dict.fromkeys(["channel", "neuron", "unit"], "row"),
    **dict.fromkeys(["expert", "experts", "slice"], "matrix"), **dict.fromkeys(["layer", "param", "parameter"], "tensor"),
    **dict.fromkeys(["network", "all", "global"], "model"), **dict.fromkeys(["weight", "coordinate", "entry"], "element"),
}  # fmt: skip
# values that have one name here, however a paper calls them
CALLED_HERE: dict[str, str] = {
    **dict.fromkeys(["grad", "gradient", "grads", "dw", "d_p"], "the gradient is `g`; at another point it is `grad(x)`"),
    **dict.fromkeys(WEIGHTS, "the parameter is called `w`"),
    **dict.fromkeys(["step", "steps", "iter", "iteration"], "the number of the step is `t`"),
    "π": "it is written `pi`", "T": "a transposed matrix is written `x.T`, the number of the step `t`",
    **dict.fromkeys(["infinity", "Infinity", "oo", "Inf"], "infinity is written `inf`"),
    **dict.fromkeys(["True", "False"], "truth values are `true` and `false`"),
}  # fmt: skip
TERNARY = frozenset(["if", "for", "lambda", "is"])
