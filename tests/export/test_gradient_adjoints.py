"""The gradient of a convolution's input, as a convolution, is torch's for every stride, padding, dilation, group."""

from __future__ import annotations

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dpmrt.export.gradients.adjoints import decompositions

aten = torch.ops.aten


@given(st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_convolution(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3), "rank")

    def each(low: int, high: int) -> list[int]:
        return data.draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    kernel, stride, padding, dilation, size = each(1, 4), each(1, 3), each(0, 3), each(1, 3), each(3, 9)
    groups, transposed = data.draw(st.integers(1, 2)), data.draw(st.booleans())
    extra = each(0, 2) if transposed else [0] * rank
    assume(all(e < max(s, d) for e, s, d in zip(extra, stride, dilation)))
    generator = torch.Generator().manual_seed(0)
    channels = (4, 6 // groups) if transposed else (6, 4 // groups)
    weight = torch.randn((*channels, *kernel), generator=generator, dtype=torch.float64)
    x = torch.randn((2, 4, *size), generator=generator, dtype=torch.float64)
    options = (stride, padding, dilation, transposed, extra, groups)
    try:
        out = aten.convolution(x, weight, None, *options)
    except RuntimeError:
        # The kernel does not fit, or nothing is left of the output.
        assume(False)
    assume(out.numel())
    arguments = (torch.randn(out.shape, generator=generator, dtype=torch.float64), x, weight, [0], *options)
    expected, _, _ = aten.convolution_backward(*arguments, [True, False, False])
    got, *rest = decompositions()[aten.convolution_backward.default](*arguments, [True, False, False])
    assert rest == [None, None]
    torch.testing.assert_close(got, expected)
