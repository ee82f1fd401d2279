"""torch modules as models, against the stand-in for the program. Skipped where torch is missing."""

import pytest

import terrabench

torch = pytest.importorskip("torch", reason="needs torch")

QUIET = {"progress": False}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 2, 1)
        self.norm = torch.nn.BatchNorm2d(2)
        self.seen = []

    def forward(self, images):
        self.seen.append((images.dtype, images.device.type, self.training, torch.is_grad_enabled()))
        return self.norm(self.conv(images)).mean((2, 3))


def test_a_module_runs_in_evaluation_mode_without_gradients_and_is_left_as_it_was(fake):
    net = Net()
    net.train()
    net.norm.eval()
    terrabench.evaluate(net, **QUIET)
    assert net.seen == [(torch.float32, "cpu", False, False)] * 3
    assert net.training and net.conv.training and not net.norm.training


def test_features_are_those_of_the_module(fake):
    net = Net()
    terrabench.evaluate(net, **QUIET)
    net.eval()
    pixels = torch.tensor([float((7 + i) % 251) for i in range(96)]).reshape(2, 3, 4, 4)
    expected = net(pixels).detach().reshape(-1).tolist()
    assert fake.all("tensors")[1]["pooled"]["numbers"] == pytest.approx(expected, rel=1e-6)


def test_images_have_the_type_of_the_parameters_and_half_features_go_as_they_are(fake):
    net = Net().to(torch.float16)
    terrabench.evaluate(net, **QUIET)
    assert net.seen[0][0] == torch.float16
    assert fake.all("tensors")[0]["pooled"]["dtype"] == "F16"


def test_bfloat16_features(fake):
    terrabench.evaluate(lambda images: images.mean((2, 3)).to(torch.bfloat16), arrays="torch", identity="x", **QUIET)
    assert fake.all("tensors")[0]["pooled"]["dtype"] == "BF16"


def test_float64_features_and_views_are_sent_as_float32(fake):
    terrabench.evaluate(lambda images: images.double().mean((2, 3)).flip(1), arrays="torch", identity="x", **QUIET)
    (first, *_) = fake.all("tensors")
    assert first["pooled"]["dtype"] == "F32" and first["pooled"]["shape"] == [2, 3]
    means = [sum(float(i + 16 * c) for i in range(16)) / 16 for c in range(3)]
    assert first["pooled"]["numbers"][:3] == pytest.approx(means[::-1])


def test_images_share_the_memory_that_was_received(fake):
    from terrabench import _arrays
    from terrabench._safetensors import Tensor

    buffer = _arrays.Buffers("torch", "cpu")(16)
    images = _arrays.received(Tensor("F32", (4,), buffer), "torch")
    buffer[:] = b"\x00\x00\x80\x3f" * 4
    assert images.tolist() == [1.0] * 4


def test_stored_pixels_become_the_type_of_the_parameters(fake):
    fake.play([{"name": "m-eurosat", "batches": [1], "pixels": "U16"}])
    net = Net()
    terrabench.evaluate(net, pixels="stored", **QUIET)
    assert net.seen[0][0] == torch.float32


def test_the_identity_of_a_module_is_that_of_its_weights(fake):
    net = Net()
    terrabench.evaluate(net, **QUIET)
    with torch.no_grad():
        net.conv.bias[0] += 1
    terrabench.evaluate(net, **QUIET)
    first, second = [ready["identity"] for ready in fake.all("ready")]
    assert first.startswith("module:") and first != second
    assert all("--no-cache" not in arguments for arguments in fake.all("arguments"))
