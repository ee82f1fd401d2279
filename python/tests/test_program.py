"""The package with the real program, on the demo's data. Skipped where the program is not built."""

import json
import os
import subprocess
from pathlib import Path

import pytest

import terrabench
from terrabench import _arrays, _safetensors

QUIET = {"progress": False}
BANDS = ["B02", "B03", "B04", "B08"]


def means(images):
    """[n, c, h, w] to [n, c] in plain Python."""
    n, c, h, w = images.shape
    flat = images.cast("B").cast("f")
    return [[sum(flat[(i * c + k) * h * w : (i * c + k + 1) * h * w]) / (h * w) for k in range(c)] for i in range(n)]


def few(**more):
    """Arguments for a quick run."""
    return {
        "tasks": "m-eurosat",
        "partitions": "default",
        "demo": True,
        "bands": BANDS,
        "size": 8,
        "arrays": "memoryview",
        "batch_size": 16,
        **QUIET,
        **more,
    }


def test_a_function_is_measured(real):
    results = terrabench.evaluate(means, protocols=["knn", "linear-probe"], **few())
    assert {record.protocol for record in results} == {"knn", "linear-probe"}
    (knn,) = results.where(protocol="knn")
    assert knn.demo and (knn.model, knn.backbone) == ("means", "own encoder")
    predictions = knn.predictions()
    right = sum(int(p) == int(t) for p, t in zip(predictions.predicted, predictions.truth))
    assert 100 * right / len(predictions) == pytest.approx(knn.value)
    assert Path("results/geobench-demo/records").is_dir()
    assert len(terrabench.load()) == len(results)


def test_finished_cells_need_no_model_and_features_are_cached(real):
    calls = []

    def model(images):
        # A single image of zeros comes in every run: the program learns the width of the features from it.
        calls.extend([images.shape[0]] * (images.shape[0] > 1))
        return means(images)

    first = terrabench.evaluate(model, identity="one", **few())
    called = len(calls)
    assert called > 0
    again = terrabench.evaluate(model, identity="one", **few())
    fresh = terrabench.evaluate(model, identity="one", fresh=True, **few())
    assert len(calls) == called
    assert [record.value for record in again] == [record.value for record in fresh] == [first[0].value]
    terrabench.evaluate(model, identity="two", **few())
    assert len(calls) == 2 * called


def test_an_exception_in_the_model_comes_back_and_ends_the_program(real):
    def model(images):
        raise ZeroDivisionError("none")

    with pytest.raises(ZeroDivisionError, match="none"):
        terrabench.evaluate(model, identity="x", **few())


def test_features_that_are_not_finite_are_an_error_that_names_a_sample(real):
    with pytest.raises(terrabench.Error, match="not finite"):
        terrabench.evaluate(lambda images: [[float("nan")]] * images.shape[0], identity="x", **few())


def test_unknown_tasks_are_the_programs_error(real):
    with pytest.raises(terrabench.Error, match="m-eurosta"):
        terrabench.evaluate(means, **few(tasks="m-eurosta"))


def test_an_error_of_the_program_names_the_argument_behind_its_option(real):
    with pytest.raises(terrabench.Error, match="(?s)B99.*--input-bands.*in Python: bands for --input-bands"):
        terrabench.evaluate(means, **few(bands=["B99"]))


def test_batches_have_names_labels_and_the_models_bands(real):
    batches = terrabench.encode(
        None, "m-eurosat", "test", demo=True, bands=BANDS, size=8, batch_size=16, arrays="memoryview"
    )
    assert tuple(band.name for band in batches.images[0].bands) == tuple(BANDS)
    found = list(batches)
    assert sum(map(len, found)) == batches.samples and found[0].images.shape == (16, 4, 8, 8)
    names = [name for batch in found for name in batch.samples]
    (record,) = terrabench.evaluate(means, protocols="knn", **few())
    predictions = record.predictions()
    assert tuple(names) == predictions.samples
    assert [label for batch in found for label in batch.labels.tolist()] == [int(t) for t in predictions.truth]


def test_batches_hold_the_pixels_that_the_model_gets(real):
    seen = []

    def model(images):
        seen.extend(means(images))
        return means(images)

    terrabench.evaluate(model, protocols="knn", identity="x", **few(cache=False))
    batches = terrabench.encode(None, "m-eurosat", "test", demo=True, bands=BANDS, size=8, arrays="memoryview")
    for batch in batches:
        assert all(row in seen for row in means(batch.images))


class TestTinyVit:
    """The tiny ViT in torch, called through the package, against the program's own."""

    @pytest.fixture(autouse=True)
    def files(self, real, tmp_path):
        self.torch = pytest.importorskip("torch", reason="needs torch")
        from tiny_vit import BANDS, TOML, TinyVit

        self.program, self.bands = real, BANDS
        self.model = TinyVit().eval()
        self.weights, self.toml = tmp_path / "vit.pth", tmp_path / "vit.toml"
        self.torch.save(self.model.state_dict(), self.weights)
        self.toml.write_text(TOML.replace("{bands}", json.dumps(BANDS)))

    def run(self, *arguments):
        subprocess.run([self.program, *arguments], check=True, capture_output=True, text=True)

    def native(self, *protocols, task="m-eurosat", short=()):
        options = [word for name in protocols for word in ("--protocol", name)]
        self.run(
            "bench",
            "geobench",
            "--demo",
            "--task",
            task,
            "--partition",
            "default",
            "--model",
            self.toml,
            "--weights",
            self.weights,
            "--out",
            "native",
            *options,
            *short,
        )
        return terrabench.load("native")

    def ours(self, model, task="m-eurosat", **more):
        return terrabench.evaluate(
            model,
            tasks=task,
            partitions="default",
            demo=True,
            bands=self.bands,
            size=64,
            name="Tiny",
            backbone="ViT-48",
            results="ours",
            **{**QUIET, **more},
        )

    def test_features_are_the_native_ones_within_1e_4(self):
        # The demo generates its data in the cache folder.
        self.native("knn")
        data = next(Path(os.environ["TERRABENCH_CACHE"]).glob("**/classification_v1.0")).parent
        self.run(
            "features",
            "--data",
            data,
            "--task",
            "m-eurosat",
            "--split",
            "test",
            "--model",
            self.toml,
            "--weights",
            self.weights,
            "--out",
            "native.safetensors",
        )
        tensors, metadata = _safetensors.read(bytearray(Path("native.safetensors").read_bytes()))
        native = _arrays.received(tensors["features"], "torch")
        batches = terrabench.encode(data, "m-eurosat", "test", like=str(self.toml), arrays="torch")
        names, rows = [], []
        with self.torch.no_grad():
            for batch in batches:
                names += batch.samples
                rows.append(self.model(batch.images)["pooled"])
        assert names == json.loads(metadata["samples"])
        difference = (self.torch.cat(rows) - native).abs().max().item()
        print(f"largest difference {difference:.1e}")
        assert difference < 1e-4

        # The same over the wire: every native feature is among those that the model gave.
        given = []

        class Kept(self.torch.nn.Module):
            def __init__(self, inner):
                super().__init__()
                self.inner = inner

            def forward(self, images):
                given.append(self.inner(images)["pooled"])
                return given[-1]

        self.ours(Kept(self.model), protocols="knn", cache=False)
        distances = self.torch.cdist(native, self.torch.cat(given), p=float("inf")).min(1).values
        assert distances.max().item() < 1e-4

    def test_records_are_the_native_ones_but_for_provenance(self):
        protocols = ["knn", "linear-probe", "logistic"]
        native, ours = self.native(*protocols), self.ours(self.model, protocols=protocols)
        assert [record.protocol for record in native] == [record.protocol for record in ours] == sorted(protocols)
        for one, other in zip(native, ours):
            for key in ("cell", "metric", "demo", "samples", "protocol-settings", "selected", "notes"):
                assert one.raw.get(key) == other.raw.get(key), (one.protocol, key)
            assert other.value == pytest.approx(one.value, abs=1e-9), one.protocol
            assert other.raw["interval"] == pytest.approx(one.raw["interval"], abs=1e-9)
            assert other.predictions().predicted.tolist() == one.predictions().predicted.tolist()
            shares = other.predictions().probabilities
            assert shares.shape == (len(other.predictions()), other.predictions().classes), one.protocol
            assert shares.sum(1) == pytest.approx(1, abs=1e-5)
            for key in ("bands", "imputed", "normalization", "image-size", "sensor", "data"):
                assert one.provenance.get(key) == other.provenance.get(key), key
            assert one.provenance["weights"] != other.provenance["weights"]

    def test_tokens_give_the_native_record(self):
        task, protocol = "m-cashew-plant", "segmentation-probe"
        (native,) = self.native(protocol, task=task, short=("--limit", "4", "--epochs", "1"))
        (ours,) = self.ours(self.model, task=task, protocols=protocol, limit=4, epochs=1)
        assert ours.scores == pytest.approx(native.scores, abs=1e-9)
        assert ours.predictions().counts.tolist() == native.predictions().counts.tolist()
