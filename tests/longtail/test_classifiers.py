import pytest
import torch

from aegl.errors import ConfigError
from aegl.longtail.classifiers import CosineLinear, build_classifier
from aegl.longtail.losses.softmax_ce import SoftmaxCE


def test_kinds():
    assert isinstance(build_classifier("linear", 8, 3), torch.nn.Linear)
    cosine = build_classifier("cosine", 8, 3, temperature=7.0)
    assert isinstance(cosine, CosineLinear)
    assert cosine(torch.randn(5, 8)).shape == (5, 3)


def test_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match=r"box\.classifier=cosin: must be one of linear, cosine"):
        build_classifier("cosin", 8, 3)


def test_cosine_ignores_the_scale_of_features_and_weights():
    layer = CosineLinear(16, 4, temperature=5.0)
    features = torch.randn(6, 16)
    logits = layer(features)
    torch.testing.assert_close(layer(100 * features), logits, rtol=1e-4, atol=1e-4)
    torch.nn.init.normal_(layer.bias)
    with torch.no_grad():
        layer.weight.copy_(features[:4])
        aligned = layer(features[:4]).diagonal() - layer.bias
    torch.testing.assert_close(aligned, torch.full((4,), 5.0), rtol=1e-4, atol=1e-4)


def test_cosine_of_a_zero_feature_is_the_bias_with_a_finite_gradient():
    layer = CosineLinear(16, 4)
    features = torch.zeros(2, 16, requires_grad=True)
    logits = layer(features)
    logits.sum().backward()
    assert (logits == 0).all()
    assert torch.isfinite(features.grad).all()


def test_cosine_power_and_eps():
    features = torch.randn(3, 8)
    raw = CosineLinear(8, 2, temperature=1.0, power=0.0, eps=0.0)
    torch.testing.assert_close(raw(features), features @ raw.weight.T)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_losses_initialise_every_kind(stats, kind):
    loss = SoftmaxCE(stats)
    layer = build_classifier(kind, 256, loss.num_logits)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.ones_(layer.bias)
    loss.init_classifier(layer)
    assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert (layer.bias == 0).all()
