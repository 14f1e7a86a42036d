"""Gradients, losses and products with the Hessian of this step's batch at other weights."""

from __future__ import annotations

TEXTS = {
    "_wants_states_alone": '''
def _wants_states_alone(optimizer: Optimizer) -> bool:
    """Whether distributed checkpoints ask which states there are: by a step with gradients of 0, and without what a rule needs."""
    gradients: list[Any] = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    whole = (g.full_tensor() if hasattr(g, "full_tensor") else g for g in gradients)
    return bool(gradients) and all(_holds((g == 0).all()) for g in whole)
''',
    "_random_state": '''
def _random_state() -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The state of torch's random numbers, on the CPU and on the GPUs in use."""
    in_use: Callable[[], bool] = torch.cuda.is_initialized
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and in_use() else []
    return torch.get_rng_state(), on_gpus


def _set_random_state(state: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
''',
    "_same_batch": '''
@contextmanager
def _same_batch(optimizer: Optimizer, random_state: Any) -> Iterator[None]:
    """In here the closure meets the random numbers of its first call; the gradients of all parameters are put back at the end."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    gradients, after = [p.grad for p in params], _random_state()
    for p in params:
        p.grad = None
    _set_random_state(random_state)
    torch.clear_autocast_cache()  # it keeps casts of weights, which will be elsewhere
    try:
        yield
    finally:
        torch.clear_autocast_cache()
        _set_random_state(after)
        for p, gradient in zip(params, gradients):
            p.grad = gradient
''',
    "_gradients": '''
def _gradients(
    optimizer: Optimizer, closure: Callable[[], Any], params: list[torch.Tensor], points: Iterable[Any], random_state: Any,
) -> list[torch.Tensor]:
    """The gradients of this step's batch at other points; the weights are put back whatever happens."""
    weights = [p.detach().clone() for p in params]
    with _same_batch(optimizer, random_state):
        try:
            for p, point in zip(params, points):
                p.copy_(torch.as_tensor(point, dtype=p.dtype, device=p.device))
            with torch.enable_grad():
                closure()
            return [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in params]
        finally:
            for p, weight in zip(params, weights):
                p.copy_(weight)
''',
    "_loss_at": '''
def _loss_at(
    optimizer: Optimizer, closure: Callable[[], Any], params: list[torch.Tensor], points: Iterable[Any], random_state: Any,
    home: torch.Tensor,
) -> torch.Tensor:
    """The loss of this step's batch at other points, without a backward pass; the weights are put back whatever happens."""
    weights, backward = [p.detach().clone() for p in params], torch.autograd.backward
    torch.autograd.backward = lambda *args, **more: None
    with _same_batch(optimizer, random_state):
        try:
            for p, point in zip(params, points):
                p.copy_(torch.as_tensor(point, dtype=p.dtype, device=p.device))
            return _mean_loss(closure(), params, home)
        finally:
            vars(torch.autograd)["backward"] = backward
            for p, weight in zip(params, weights):
                p.copy_(weight)
''',
    "_hessian_products": '''
@contextmanager
def _differentiable_backward() -> Iterator[None]:
    """In here `loss.backward()` keeps what is needed to differentiate the gradients again."""
    plain = torch.autograd.backward

    def backward(tensors: Any, grad_tensors: Any = None, retain_graph: Any = None, create_graph: bool = False, **more: Any) -> None:
        plain(tensors, grad_tensors, True, True, **more)

    vars(torch.autograd)["backward"] = backward
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Using backward\\(\\) with create_graph=True")
            yield
    finally:
        vars(torch.autograd)["backward"] = plain


def _hessian_products(
    optimizer: Optimizer, closure: Callable[[], Any], params: list[torch.Tensor], vectors: Iterable[Any], random_state: Any,
) -> list[torch.Tensor]:
    """The Hessian of this step's batch times vectors, by differentiating the gradients."""
    vectors = [torch.as_tensor(v, dtype=p.dtype, device=p.device).expand_as(p) for p, v in zip(params, vectors)]
    with _same_batch(optimizer, random_state), _differentiable_backward(), torch.enable_grad():
        closure()
        pairs = [(p.grad, v) for p, v in zip(params, vectors) if p.grad is not None and p.grad.requires_grad]
        if not pairs:
            return [torch.zeros_like(p) for p in params]
        outputs, directions = zip(*pairs)
        products = torch.autograd.grad(outputs, params, directions, allow_unused=True)
    return [torch.zeros_like(p) if x is None else x.detach() for p, x in zip(params, products)]
''',
}  # fmt: skip
