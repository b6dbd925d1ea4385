"""What a network of particles keeps."""

import pytest
import torch

from scorefield import (
    EDM,
    EGNN,
    PotentialField,
    PreconditionedField,
    particle_positions,
    relative_coordinates,
)


def network(dtype=torch.float64, **settings):
    return EGNN((4, 3), **{"hidden": 16, "depth": 3, "embedding": 8, **settings}).to(dtype)


def inputs(dtype=torch.float64, batch=6):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 5, 3, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.linspace(-1, 1, batch, dtype=dtype)


def turn(dtype):
    """An orthogonal matrix that turns and reflects."""
    generator = torch.Generator().manual_seed(1)
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    q[:, 0] *= -torch.linalg.det(q).sign()
    return q.to(dtype)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_the_output_turns_with_the_particles_and_is_permuted_with_them(dtype, error):
    net, (x, label) = network(dtype), inputs(dtype)

    def moved(x):
        return particle_positions(net(relative_coordinates(x), label))

    y, q = moved(x), turn(dtype)
    assert y.abs().max() > 0.01
    order = [3, 0, 4, 1, 2]
    for got, expected in (
        (moved(x @ q), y @ q),
        (moved(x[:, order]), y[:, order]),
        (moved(x + 2.0), y),
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=error)


@pytest.mark.parametrize("head", ["plain", "inner"])
def test_its_fields_are_equivariant_and_a_potential_is_invariant(head):
    net, sde = network(), EDM(0.01, 20.0)
    x, _ = inputs()
    t = torch.linspace(0.02, 10, len(x), dtype=torch.float64)
    if head == "plain":
        field = PreconditionedField(net, sde, 1.3, shape=(4, 3))
    else:
        field = PotentialField(net, sde, 1.3, head=head, shape=(4, 3))
    q, order = turn(torch.float64), [3, 0, 4, 1, 2]
    y = relative_coordinates(x)
    score = particle_positions(field.score(y, t))
    turned = field.score(relative_coordinates(x[:, order] @ q), t)
    torch.testing.assert_close(
        particle_positions(turned), score[:, order] @ q, rtol=1e-9, atol=1e-9
    )
    if head != "plain":
        other = field.potential(relative_coordinates(x[:, order] @ q + 4.0), t)
        torch.testing.assert_close(other, field.potential(y, t), rtol=1e-9, atol=1e-9)


def test_a_particle_is_moved_by_all_others():
    net, (x, label) = network(depth=1), inputs(batch=1)
    jacobian = torch.autograd.functional.jacobian(
        lambda u: particle_positions(net(relative_coordinates(u), label)), x
    )
    assert (jacobian[0, :, :, 0].abs().amax(dim=(1, 3)) > 1e-4).all()


def test_what_are_no_particles_is_refused():
    with pytest.raises(ValueError, match=r"EGNN has a shape \(particles - 1, dims\), got \(3,\)"):
        EGNN((3,))
    with pytest.raises(ValueError, match="EGNN: depth must be a positive integer"):
        EGNN((3, 2), depth=0)
