"""`encode` against the stand-in for the program."""

import pytest

import terrabench

PLAIN = {"arrays": "memoryview"}


def test_batches_come_with_names_and_labels(fake):
    fake.play(batches=[2, 2, 1])
    with terrabench.encode("data", "m-eurosat", "test", bands=["B04", "B03", "B02"], **PLAIN) as batches:
        assert (len(batches), batches.samples, batches.images[0].sensor) == (3, 5, "s2-l2a")
        found = list(batches)
    assert [batch.samples for batch in found] == [("0-0", "0-1"), ("1-0", "1-1"), ("2-0",)]
    assert [batch.labels.tolist() for batch in found] == [[0, 1], [0, 1], [0]]
    assert found[1].images.shape == (2, 3, 4, 4) and found[1].images[0, 0, 0, 1] == 8.0
    assert found[0].days is None and len(found[2]) == 1
    (arguments,) = fake.all("arguments")
    assert "--encoder encode" in " ".join(arguments) and "--input-bands=B04,B03,B02" in arguments


def test_options_reach_the_command_line(fake):
    fake.play(batches=[1])
    list(
        terrabench.encode(
            None,
            "m-eurosat",
            "train",
            demo=True,
            like="terrafm-b",
            normalization="dataset",
            batch_size=4,
            threads=2,
            options=["--verify"],
            **PLAIN,
        )
    )
    (arguments,) = fake.all("arguments")
    assert " ".join(arguments) == (
        "--suite geobench --task m-eurosat --partition default --split train --model terrafm-b --batch-size 4 "
        "--demo --normalization dataset --threads 2 --verify"
    )


def test_leaving_early_stops_the_program(fake):
    fake.play(batches=[64] * 400)
    batches = terrabench.encode("data", "m-eurosat", **PLAIN)
    next(batches)
    process = batches._child.process
    batches.close()
    assert process.poll() is not None
    assert list(batches) == []


def test_a_failure_in_the_middle_is_an_error(fake):
    fake.play(batches=[1, 1, 1], fail_after=1)
    batches = terrabench.encode("data", "m-eurosat", **PLAIN)
    with pytest.raises(terrabench.Error, match="sample 3 is damaged\n  help: fetch it again"):
        list(batches)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split": "all"}, "expected train, valid or test"),
        ({"like": "terrafm-b", "bands": ["B04"]}, "its own bands"),
        ({"device": "cuda"}, "needs torch arrays"),
        ({"data": "x", "demo": True}, "generates its data"),
    ],
)
def test_wrong_requests_start_nothing(fake, wrong, message):
    with pytest.raises(terrabench.Error, match=message):
        terrabench.encode(**{"data": None, "task": "m-eurosat", **PLAIN, **wrong})
    assert fake.seen == []


def test_numpy_arrays(fake):
    numpy = pytest.importorskip("numpy", reason="needs numpy")
    fake.play(batches=[2])
    (batch,) = terrabench.encode("data", "m-eurosat", arrays="numpy")
    assert batch.images.dtype == numpy.float32 and batch.labels.dtype == numpy.int64


def test_torch_tensors(fake):
    torch = pytest.importorskip("torch", reason="needs torch")
    fake.play(batches=[2])
    (batch,) = terrabench.encode("data", "m-eurosat", arrays="torch", device="cpu")
    assert batch.images.dtype == torch.float32 and batch.labels.dtype == torch.int64
