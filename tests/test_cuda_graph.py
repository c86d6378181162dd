"""The recorded forward pass gives what the model gives, in copies of its own, and never waits for the GPU."""

from functools import partial

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pudnet_lib import speed as cuda_graph
from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.heads import leave_one_out_loss
from pudnet_lib.core.predict import PredictConfig, predict
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.speed import recorded_forward

LABELS = torch.tensor([0, 0, 0, 1, 1])


def sketch(seed: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def model_with(refine: int) -> PudNet:
    return PudNet(
        PudNetConfig(TargetConfig(width=3), refine=LastBlock(refine, choose_steps=False) if refine else None)
    ).eval()


class Recorder:
    """Stands for the GPU: replaying does the recorded work again and writes into the same tensors."""

    def __init__(self) -> None:
        self.recorded = 0

    def __call__(self, call):
        self.recorded += 1
        with torch.no_grad():
            out = {name: tensor.detach().clone() for name, tensor in call().items()}

        def replay():
            for name, tensor in call().items():
                out[name].copy_(tensor)
            return out

        return replay


@pytest.mark.parametrize("refine", [0, 2])
def test_equals_the_model_and_records_once_a_shape(refine):
    model, recorder = model_with(refine), Recorder()
    forward = partial(recorded_forward, recorder=recorder)
    one, other = (forward(model, sketch(seed), LABELS) for seed in (2, 3))
    with torch.no_grad():
        for found, seed in ((one, 2), (other, 3)):  # the first is no tensor that the second call wrote over
            wanted = model(sketch(seed), LABELS)
            assert found.keys() == wanted.keys()
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert recorder.recorded == 1
    forward(model, sketch()[:4], LABELS[:4])
    assert recorder.recorded == 2


def test_weights_that_moved_are_recorded_anew_and_old_recordings_go(monkeypatch):
    model, recorder = model_with(0), Recorder()
    monkeypatch.setattr(cuda_graph, "KEPT", 1)
    forward = partial(recorded_forward, recorder=recorder)
    forward(model, sketch(), LABELS)
    with torch.no_grad():
        model.scale.mul_(2)  # in place: the recording reads the new value
    forward(model, sketch(), LABELS)
    assert recorder.recorded == 1
    for parameter in model.parameters():
        parameter.data = parameter.data + 1
    found = forward(model, sketch(), LABELS)
    assert recorder.recorded == 2
    assert len(cuda_graph._RECORDINGS[model]) == 1
    with torch.no_grad():
        assert all(torch.equal(found[name], t) for name, t in model(sketch(), LABELS).items())


def test_only_whole_pixels_and_only_on_cuda():
    model = model_with(0)
    with pytest.raises(PudNetError, match="reads uint8"):
        recorded_forward(model, sketch() / 255, LABELS, Recorder())
    data = ImageDataset(sketch(), LABELS, ("a", "b"))
    with pytest.raises(PudNetError, match=r"needs a CUDA device.*leave cuda_graph off"):
        predict(model, data, PredictConfig(cuda_graph=True))


def test_the_loss_with_as_many_columns_as_images(monkeypatch):
    features = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    exact = leave_one_out_loss(features, LABELS, torch.tensor(7.0))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _: True))
    recorded = leave_one_out_loss(features, LABELS, torch.tensor(7.0))
    torch.testing.assert_close(recorded, exact)


@pytest.mark.parametrize("refine", [0, 2])
def test_no_operation_waits_for_a_value(refine, monkeypatch):
    """Tensors without values raise where Python asks for one, as a GPU does that is being recorded."""
    model = model_with(refine)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        images, labels = mode.from_tensor(sketch()), mode.from_tensor(LABELS)
        monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _: True))
        out = model(images, labels)
    assert out["blocks.0.0.weight"].shape == (3, 3, 3, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("refine", [0, 2])
def test_on_a_gpu(refine):
    model = model_with(refine).to("cuda")
    for seed in (2, 3):
        images, labels = sketch(seed).to("cuda"), LABELS.to("cuda")
        found = recorded_forward(model, images, labels)
        with torch.no_grad():
            wanted = model(images, labels)
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name], atol=1e-5, rtol=1e-4)
