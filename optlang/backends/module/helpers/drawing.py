"""Random numbers."""

from __future__ import annotations

TEXTS = {
    "_philox": '''
def _philox(index: torch.Tensor, t: Any, site: int, seed: int, stream: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random words of 32 bits that depend on their counter alone: Philox4x32-10 (Salmon et al. 2011)."""
    mask = 0xFFFFFFFF
    words: tuple[Any, Any, Any, Any] = index & mask, (index >> 32) & mask, t & mask, site
    a, b, c, d = words
    key0, key1 = seed & mask, stream & mask
    for _ in range(10):
        first, second = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = ((second >> 32) & mask) ^ b ^ key0, second & mask, ((first >> 32) & mask) ^ d ^ key1, first & mask
        key0, key1 = (key0 + 0x9E3779B9) & mask, (key1 + 0xBB67AE85) & mask
    return a, b
''',
    "_draw": '''
def _draw(
    distribution: str, site: int, shape: tuple[int, ...], like: torch.Tensor, *, t: Any, seed: int, stream: int,
) -> torch.Tensor:
    """Draws that depend on the place in the rule, the step, the seed and the parameter alone, so that a resumed run draws the same."""
    index = torch.arange(math.prod(shape), device=like.device)
    a, b = _philox(index, t.long() if isinstance(t, torch.Tensor) else t, site, seed, stream)
    if distribution == "rademacher":
        return (1 - 2 * (a >> 31)).to(like.dtype).reshape(shape)
    u, v = (((x >> 8).double() + 0.5) * 2.0**-24 for x in (a, b))
    if distribution == "exponential":
        u = -torch.log(u)
    elif distribution == "normal":
        u = torch.sqrt(-2 * torch.log(u)) * torch.cos(2 * math.pi * v)
    return u.to(like.dtype).reshape(shape)
''',
}  # fmt: skip
