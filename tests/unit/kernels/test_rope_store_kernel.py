"""RoPE and KV store: every backend against the definition, and the definition against complex rotation."""

import pytest
import torch

from dualpath_kernels import rope_store
from dualpath_kernels.rope_store import rope_reference, rope_store_reference

TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2e-2}


def make(tokens, heads, kv_heads, size, dtype, packed=True, rows=None):
    generator = torch.Generator().manual_seed(tokens + heads)
    qkv = torch.randn(tokens, heads + 2 * kv_heads, size, generator=generator).to(dtype)
    q, k, v = qkv.split((heads, kv_heads, kv_heads), dim=1)
    if not packed:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    angles = torch.rand(100, size // 2, generator=generator) * 6
    rows = rows or tokens + 5
    kv_rows = torch.randn(rows, 2, kv_heads, size, generator=generator).to(dtype)
    places = torch.randperm(rows, generator=generator)[:tokens]
    positions = torch.randint(0, 100, (tokens,), generator=generator)
    return [q, k, v, angles.cos(), angles.sin(), positions, kv_rows, places]


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 2), (7, 4, 2, 16), (3, 3, 1, 24), (5, 6, 3, 64), (2, 12, 4, 128)]
)
def test_matches_the_definition(backend, dtype, packed, shape):
    ours, theirs = make(*shape, dtype, packed), make(*shape, dtype, packed)
    before = ours[0].clone(), ours[1].clone()
    rotated = rope_store(*ours, backend=backend)
    expected = rope_store_reference(*theirs)
    torch.testing.assert_close(rotated, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    torch.testing.assert_close(ours[6], theirs[6], atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    untouched = torch.ones(len(ours[6]), dtype=torch.bool)
    untouched[ours[7]] = False
    assert torch.equal(ours[6][untouched], make(*shape, dtype, packed)[6][untouched])
    assert torch.equal(ours[0], before[0])
    assert torch.equal(ours[1], before[1])


def test_the_definition_is_a_rotation_of_the_pairs():
    q, _, _, cos, sin, positions, _, _ = make(5, 2, 1, 8, torch.float32)
    rotated = rope_reference(q, cos[positions], sin[positions])
    turned = torch.complex(q[..., :4], q[..., 4:]) * torch.complex(cos, sin)[positions][:, None]
    torch.testing.assert_close(rotated, torch.cat((turned.real, turned.imag), -1))


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_a_paged_pool_is_rows_too(backend):
    arguments = make(3, 2, 1, 4, torch.float32, rows=256)
    pool = torch.zeros(4, 64, 2, 1, 4)
    arguments[6], arguments[7] = pool.view(-1, 2, 1, 4), torch.tensor([3 * 64 + 63, 0, 64])
    rope_store(*arguments, backend=backend)
    assert torch.equal(pool[3, 63, 1], arguments[2][0])
    assert torch.equal(pool[0, 0, 1], arguments[2][1])
    assert torch.equal(pool[1, 0, 1], arguments[2][2])


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_no_tokens(backend):
    assert rope_store(*make(0, 2, 1, 4, torch.float32), backend=backend).shape == (0, 2, 4)


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (2, torch.randn(3, 2, 4), "v has shape"),
        (5, torch.zeros(3, dtype=torch.int32), "positions has dtype"),
        (7, torch.zeros(3, dtype=torch.int32), "rows has dtype"),
        (7, torch.zeros(2, dtype=torch.int64), "rows has shape"),
        (3, torch.zeros(100, 4), "cos has shape"),
        (6, torch.zeros(9, 2, 1, 4).bfloat16(), "convert one"),
        (6, torch.zeros(9, 2, 1, 8)[..., :4], "strided"),
        (0, torch.zeros(3, 4, 2).transpose(1, 2), "heads of q are strided"),
    ],
)
def test_wrong_arguments_are_refused(index, value, message):
    arguments = make(3, 2, 1, 4, torch.float32)
    arguments[index] = value
    with pytest.raises(ValueError, match=message):
        rope_store(*arguments)
