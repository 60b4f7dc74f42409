from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from aegl.errors import CheckpointError, ConfigError
from aegl.models.backbone import TimmBackbone


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "mobilenetv2_100", "swin_tiny_patch4_window7_224"])
def test_maps_have_the_promised_strides(name: str) -> None:
    backbone = TimmBackbone(name, pretrained=False).eval()
    assert backbone.strides == [4, 8, 16, 32]
    for side in (64, 96):
        with torch.no_grad():
            maps = backbone(torch.zeros(1, 3, side, side))
        shapes = [tuple(feature.shape) for feature in maps]
        assert shapes == [
            (1, c, side // s, side // s) for c, s in zip(backbone.channels, backbone.strides, strict=True)
        ]
    assert backbone.dynamic_size is (not name.startswith("swin"))


def test_frozen_parts_stay_frozen_in_training() -> None:
    backbone = TimmBackbone("test_resnet", pretrained=False, norm="eval", frozen_stages=1).train()
    trained = {name for name, p in backbone.body.named_parameters() if p.requires_grad}
    assert not any(name.startswith(("conv1", "bn1", "layer1")) for name in trained)
    assert any(name.startswith("layer2") for name in trained)
    assert not any(m.training for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d))
    free = TimmBackbone("test_resnet", pretrained=False, norm="batch", frozen_stages=-1).train()
    assert all(p.requires_grad for p in free.parameters())


def test_unknown_and_unfit_models() -> None:
    with pytest.raises(ConfigError, match="resnet5000"):
        TimmBackbone("resnet5000", pretrained=False)


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **keys: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    with pytest.raises(CheckpointError, match="backbone_weights"):
        TimmBackbone("test_resnet", pretrained=True)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_local_weights(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model(name, pretrained=False).state_dict(), path)
    a = TimmBackbone(name, weights_file=path).eval()
    b = TimmBackbone(name, weights_file=path).eval()
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(a(image)[-1], b(image)[-1])


def test_weights_of_another_model(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), path)
    with pytest.raises(CheckpointError, match="does not fit"):
        TimmBackbone("test_convnext", weights_file=path)
    path.write_text("no weights")
    with pytest.raises(CheckpointError, match="cannot be read"):
        TimmBackbone("test_resnet", weights_file=path)


def test_frozen_norms_compute_what_the_norms_did_and_load_their_states() -> None:
    torch.manual_seed(0)
    plain = TimmBackbone("test_resnet", pretrained=False, norm="batch", frozen_stages=-1).train()
    plain(torch.rand(4, 3, 64, 64))
    state = plain.eval().state_dict()
    frozen = TimmBackbone("test_resnet", pretrained=False, norm="frozen", frozen_stages=-1)
    frozen.load_state_dict(state)
    image = torch.rand(2, 3, 64, 64)
    for mode in (True, False):
        for found, expected in zip(frozen.train(mode)(image), plain(image), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    before = {name: value.clone() for name, value in frozen.named_buffers()}
    sum(feature.sum() for feature in frozen.train()(image)).backward()
    assert all(torch.equal(value, before[name]) for name, value in frozen.named_buffers())
    trained = {name for name, p in frozen.body.named_parameters() if p.requires_grad}
    assert trained and not any("bn" in name for name in trained)
