"""Models of timm and torchgeo by name. Skipped where torch or timm are missing."""

import enum
import sys
import types

import pytest

import terrabench

torch = pytest.importorskip("torch", reason="needs torch")


def context(want):
    return types.SimpleNamespace(want=want)


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="needs timm")


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_networks_of_timm_give_all_kinds_of_features(timm, name):
    model = terrabench.timm(name, bands=["B02", "B03", "B04", "B08"], pretrained=False).eval()
    assert model.terrabench_defaults["bands"] == ("B02", "B03", "B04", "B08")
    images = torch.zeros(2, 4, 224, 224)
    with torch.no_grad():
        pooled = model(images, context("pooled"))["pooled"]
        tokens = model(images, context("tokens"))
        maps = model(images, context("maps"))
    assert pooled.ndim == 2 and pooled.shape[0] == 2
    rows, columns = tokens["grid"]
    assert tokens["tokens"].shape == (2, rows * columns, pooled.shape[1])
    assert len(maps["maps"]) == 4
    for one, stride in zip(maps["maps"], maps["strides"]):
        assert one.shape[0] == 2 and one.shape[-2:] == (224 // stride, 224 // stride)


def test_a_network_of_timm_serves_the_program(timm, fake):
    fake.play([{"name": "m-eurosat", "batches": [2]}])
    model = terrabench.timm("resnet18", pretrained=False)
    assert len(terrabench.evaluate(model, progress=False)) == 1
    assert fake.all("tensors")[0]["pooled"]["shape"] == [2, 512]
    assert "--name=resnet18" in fake.all("arguments")[0]


class Weights(enum.Enum):
    SENTINEL2_ALL_MOCO = types.SimpleNamespace(
        meta={"bands": ["B1", "B2", "B8a", "B10"], "in_chans": 4}, transforms=torch.nn.Hardtanh(0.0, 5.0)
    )
    LANDSAT_TM_TOA_MOCO = types.SimpleNamespace(meta={"bands": ["B1", "B2"], "in_chans": 2}, transforms=None)

    @property
    def meta(self):
        return self.value.meta

    @property
    def transforms(self):
        return self.value.transforms


@pytest.fixture
def torchgeo(monkeypatch, timm):
    """The part of torchgeo that is used, with the same names."""

    def own(name, in_chans):
        return torch.nn.Conv2d(in_chans, 1, 1)

    def get_model(name, *, weights=None, **options):
        if weights is not None:
            options["in_chans"] = weights.meta["in_chans"]
        return {"resnet18": timm.create_model, "dofa": lambda name: None, "unet": own}[name](name, **options)

    def get_weight(name):
        for weight in Weights:
            if str(weight) == name:
                return weight
        raise ValueError(f"{name} is not a valid WeightsEnum")

    models = types.ModuleType("torchgeo.models")
    models.get_model, models.get_weight = get_model, get_weight
    models.get_model_weights, models.list_models = lambda name: Weights, lambda: ["resnet18"]
    package = types.ModuleType("torchgeo")
    package.models = models
    monkeypatch.setitem(sys.modules, "torchgeo", package)
    monkeypatch.setitem(sys.modules, "torchgeo.models", models)


def test_weights_of_torchgeo_decide_bands_and_transforms(torchgeo):
    model = terrabench.torchgeo("resnet18", "Weights.SENTINEL2_ALL_MOCO").eval()
    defaults = model.terrabench_defaults
    assert defaults["bands"] == ("B01", "B02", "B8A", "B10") and defaults["pixels"] == "stored"
    assert defaults["impute"] == [("zeros", "B10")]
    with torch.no_grad():
        clipped = model(torch.full((1, 4, 64, 64), 9.0), context("pooled"))["pooled"]
        limit = model(torch.full((1, 4, 64, 64), 5.0), context("pooled"))["pooled"]
    assert clipped.shape == (1, 512) and torch.equal(clipped, limit)


def test_wrong_names_of_torchgeo_say_what_there_is(torchgeo):
    with pytest.raises(terrabench.Error, match="Weights.SENTINEL2_ALL_MOCO"):
        terrabench.torchgeo("resnet18", "Weights.X")
    with pytest.raises(terrabench.Error, match="it has resnet18"):
        terrabench.torchgeo("resnet19")
    with pytest.raises(terrabench.Error, match="Sentinel-1 or Sentinel-2, found B1, B2"):
        terrabench.torchgeo("resnet18", "Weights.LANDSAT_TM_TOA_MOCO")


@pytest.mark.parametrize("name", ["dofa", "unet"])
def test_models_that_timm_did_not_build_are_refused(torchgeo, name):
    with pytest.raises(terrabench.Error, match=f"{name} is not built by timm.*\n.*write a function"):
        terrabench.torchgeo(name)


@pytest.mark.parametrize("name", ["timm", "torchgeo"])
def test_a_missing_library_says_how_to_install_it(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(terrabench.Error, match=f"pip install {name}"):
        getattr(terrabench, name)("resnet18")
