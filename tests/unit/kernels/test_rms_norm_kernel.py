"""RMSNorm: every backend against the definition."""

import pytest
import torch

from dualpath_kernels import rms_norm
from dualpath_kernels.rms_norm import rms_norm_reference

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5, 64), (2, 129), (4, 768), (3, 5, 16), (1, 3, 33)])
@pytest.mark.parametrize("with_residual", [False, True])
def test_matches_the_definition(backend, dtype, shape, with_residual):
    torch.manual_seed(0)
    x, weight = torch.randn(shape).to(dtype), torch.randn(shape[1:]).to(dtype)
    residual = torch.randn(shape).to(dtype) if with_residual else None
    before = x.clone()
    normed, summed = rms_norm(x, weight, 1e-5, residual, backend=backend)
    expected, expected_sum = rms_norm_reference(x, weight, 1e-5, residual)
    torch.testing.assert_close(normed, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    torch.testing.assert_close(summed, expected_sum)
    assert torch.equal(x, before)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_heads_that_are_part_of_a_packed_projection(backend):
    packed = torch.randn(4, 10, 16)
    x, weight = packed[:, 2:7], torch.randn(16)
    normed, _ = rms_norm(x, weight, 1e-6, backend=backend)
    torch.testing.assert_close(normed, rms_norm_reference(x, weight, 1e-6)[0])


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_no_rows(backend):
    normed, _ = rms_norm(torch.empty(0, 8), torch.ones(8), 1e-6, backend=backend)
    assert normed.shape == (0, 8)


def test_wrong_arguments_are_refused():
    x, weight = torch.randn(4, 8), torch.ones(8)
    with pytest.raises(ValueError, match="weight has shape"):
        rms_norm(x, torch.ones(7), 1e-6)
    with pytest.raises(ValueError, match="strided"):
        rms_norm(torch.randn(8, 4).t(), weight, 1e-6)
    with pytest.raises(ValueError, match="residual has shape"):
        rms_norm(x, weight, 1e-6, torch.randn(3, 8))
    with pytest.raises(ValueError, match="convert one"):
        rms_norm(x, weight.bfloat16(), 1e-6)
    with pytest.raises(ValueError, match="dimensions"):
        rms_norm(torch.randn(8), weight, 1e-6)
    with pytest.raises(ValueError, match="does not exist"):
        rms_norm(x, weight, 1e-6, backend="cuda")
