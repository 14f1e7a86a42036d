"""What a kernel of a generated module may step."""

from __future__ import annotations

TEXTS = {
    "_for_kernel": '''
def _for_kernel(group: dict[str, Any], *tensors: Any) -> list[torch.Tensor]:
    """The tensors of a parameter where a kernel can step them: on a GPU, in 32 bits or less, and alike in memory; else nothing.
    Of parameters that several processes hold parts of, those that are here."""
    if triton is None or group["fused"] is False or group["capturable"] or group["differentiable"] or torch.compiler.is_compiling():
        return []
    if any(getattr(x, "placements", None) != getattr(tensors[0], "placements", None) for x in tensors):
        return []
    here = [x.to_local() if hasattr(x, "to_local") else x for x in tensors]
    first = here[0]
    alike = all(
        type(x) in (torch.Tensor, torch.nn.Parameter) and x.layout == torch.strided and x.stride() == first.stride()
        and x.shape == first.shape and x.device == first.device and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        for x in here
    )
    in_one_piece = alike and (first.is_contiguous() or first.is_contiguous(memory_format=torch.channels_last))
    return here if in_one_piece and first.device.type == "cuda" and first.numel() > 0 else []
''',
}
