import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from scorefield import EDM, PreconditionedField, UNet
from scorefield.calculus.asymmetry import probed_asymmetry


def test_begins_at_nearly_zero_with_gradients_everywhere():
    network = UNet((1, 8, 8), channels=8, attention=(4,))
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = network(x, torch.zeros(4))
    assert float(y.detach().abs().amax()) < 1e-3
    (y - x).square().sum().backward()
    assert all(p.grad.abs().amax() > 0 for p in network.parameters())


def test_the_unet_names_the_sizes_that_fit():
    with pytest.raises(ValueError, match=r"3 levels .* multiples of 4, got 8 x 6"):
        UNet((1, 8, 6), multipliers=(1, 2, 2))


def test_says_where_attention_is_possible():
    with pytest.raises(ValueError, match=r"\[8, 4\], got 16"):
        UNet((1, 8, 8), attention=(16,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (8, 8)}, "channels, height, width"),
        ({"channels": 0}, "channels=0"),
        ({"multipliers": ()}, "multipliers"),
        ({"blocks": 0}, "blocks=0"),
        ({"dropout": 1.0}, "dropout"),
        ({"patch": 0}, "patch=0"),
        ({"patch": 3}, "a patch of 3 pixels does not divide images of"),
        ({"patch": 8}, "multiples of 2, got 1 x 1"),
    ],
)
def test_rejects_what_makes_no_network(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNet(**arguments)


def test_dropout_acts_in_training_only():
    network = UNet((1, 8, 8), channels=8, dropout=0.5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    x, label = torch.randn(2, 1, 8, 8), torch.zeros(2)
    assert not torch.equal(network(x, label), network(x, label))
    network.eval()
    assert torch.equal(network(x, label), network(x, label))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_attention_is_fused(layout):
    network = UNet((1, 8, 8), 32, (1, 2), attention=(4,)).to(memory_format=layout)
    x = torch.randn(2, 1, 8, 8).to(memory_format=layout)
    label = torch.tensor([0.1, 0.2])
    expected = network(x, label)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # or an error
        found = network(x, label)
    found.square().sum().backward()
    torch.testing.assert_close(found, expected)


def test_a_patch_of_pixels_is_one_pixel_of_many_channels():
    """A network whose first layers copy shows in its last one the pixels where they were."""
    network = UNet((1, 8, 8), channels=8, multipliers=(1,), patch=2)
    seen = []
    network.first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network.last.register_forward_hook(lambda *_: seen[0])
    x = torch.arange(128.0).reshape(2, 1, 8, 8)
    assert torch.equal(network(x, torch.zeros(2)), x)
    assert seen[0].shape == (2, 4, 4, 4)
    assert torch.equal(seen[0][0, :, 1, 2], x[0, 0, 2:4, 4:6].flatten())


def test_a_signal_has_patches_of_one_row():
    network = UNet((3, 1, 16), channels=8, patch=4)
    assert network.first.in_channels == 12
    assert network(torch.zeros(2, 3, 1, 16), torch.zeros(2)).shape == (2, 3, 1, 16)


def test_the_asymmetry_of_a_field_with_attention_can_be_made_small():
    field = PreconditionedField(UNet((1, 8, 8), 8, attention=(4,)), EDM(), 0.5)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    skew, _ = probed_asymmetry(field.score, x, torch.tensor([0.5, 1.0]), x.sign(), "trace")
    skew.sum().backward()
    assert any(bool(p.grad.any()) for p in field.parameters() if p.grad is not None)
