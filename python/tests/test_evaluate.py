"""`evaluate` against the stand-in for the program."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import traceback
from array import array
from pathlib import Path

import pytest

import terrabench

KNOWN = {"identity": "tests", "arrays": "memoryview", "progress": False}


def sums(images):
    """[n, c, h, w] to [n, 1]: the sum of each image, in plain Python."""
    return [[float(sum(value for band in image for row in band for value in row))] for image in images.tolist()]


def test_records_of_the_run_come_back(fake):
    fake.play([{"name": "m-eurosat", "batches": [2, 1]}, {"name": "m-so2sat", "batches": [2]}])
    results = terrabench.evaluate(sums, tasks=["m-eurosat", "m-so2sat"], protocols="knn", **KNOWN)
    assert [(record.task, record.value) for record in results] == [("m-eurosat", 3.0), ("m-so2sat", 2.0)]
    assert results[0].path.is_relative_to("results/geobench/records")


def test_features_are_those_of_the_model_in_order(fake):
    terrabench.evaluate(sums, **KNOWN)
    expected = [
        [float(sum((b * 7 + i) % 251 for i in range(k * 48, k * 48 + 48))) for k in range(n)]
        for b, n in enumerate([2, 2, 1])
    ]
    assert [tensors["pooled"]["numbers"] for tensors in fake.all("tensors")] == expected
    assert [header["id"] for header in fake.all("features")] == [0, 1, 2]


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only Linux has files in memory")
def test_batches_come_through_shared_memory(fake):
    fake.play([{"name": "m-eurosat", "batches": [1, 2, 1]}], shared=True)
    kept = []

    def keep(images):
        kept.append(images)
        return sums(images)

    terrabench.evaluate(keep, **KNOWN)
    assert [ready["shared"] for ready in fake.all("ready")] == [True]
    # What a model keeps stays as it was, though the program used the memory again.
    found = [value for images in kept for image in sums(images) for value in image]
    told = [number for tensors in fake.all("tensors") for row in [tensors["pooled"]["numbers"]] for number in row]
    assert len(told) == 4 and told == found


def test_options_reach_the_command_line(fake):
    terrabench.evaluate(
        sums, "geobench", tasks=["m-eurosat", "m-so2sat"], partitions="default", protocols=["knn", "linear-probe"],
        seeds=[0, 1], data="~/geobench", normalization="dataset", batch_size=7, results="out", fresh=True, limit=5,
        epochs=2, threads=3, cache=False, options=["--verify"], **KNOWN,
    )  # fmt: skip
    (arguments,) = fake.all("arguments")
    line = " ".join(arguments)
    for part in [
        "geobench --out out --batch-size 7 --task m-eurosat --task m-so2sat --partition default",
        "--protocol knn --protocol linear-probe --seed 0 --seed 1",
        f"--data {os.path.expanduser('~')}/geobench --normalization dataset --limit 5 --epochs 2 --threads 3",
        "--fresh --no-cache --verify --encoder-timeout",
        "--progress json --encoder fd:",
    ]:
        assert part in line, line


def test_the_model_is_described_by_options(fake):
    terrabench.evaluate(
        sums,
        bands={"s1": ["VV", "VH"], "s2-l2a": ["B04"]},
        size="native",
        name='My "model"',
        backbone="ViT-B",
        impute=[("zeros", "B10")],
        **KNOWN,
    )
    terrabench.evaluate(sums, bands=["B04", "B03"], size=64, **KNOWN)
    first, second = fake.all("arguments")
    for word in [
        '--name=My "model"',
        "--backbone=ViT-B",
        "--input-bands=s1:VV,VH",
        "--input-bands=s2-l2a:B04",
        "--input-impute=zeros:B10",
        "native",
    ]:
        assert word in first, first
    assert "--name=sums" in second and "--input-bands=B04,B03" in second and "64" in second
    assert not any(word.startswith("--backbone") for word in second)


def test_ready_states_identity_pixels_and_name(fake):
    terrabench.evaluate(sums, pixels="stored", gives=["pooled"], **KNOWN)
    (ready,) = fake.all("ready")
    assert ready == {
        "message": "ready",
        "terrabench": 1,
        "pixels": "stored",
        "identity": "tests",
        "in_flight": 2,
        "name": "sums",
        "wants": ["pooled"],
    }


def test_stored_pixels_keep_their_type(fake):
    fake.play([{"name": "m-eurosat", "batches": [1], "pixels": "U16"}])
    formats = []

    def model(images):
        formats.append((images.format, images.shape))
        return [[1.0]]

    terrabench.evaluate(model, pixels="stored", **KNOWN)
    assert formats == [("H", (1, 3, 4, 4))]


def test_tokens_and_maps_with_grid_and_strides(fake):
    fake.play([{"name": "a", "batches": [1], "want": "tokens"}, {"name": "b", "batches": [1], "want": "maps"}])

    def model(images):
        tokens = memoryview(array("f", range(8))).cast("B").cast("f", (1, 4, 2))
        fine = memoryview(array("f", range(12))).cast("B").cast("f", (1, 3, 2, 2))
        coarse = memoryview(array("f", range(5))).cast("B").cast("f", (1, 5, 1, 1))
        return {"tokens": tokens, "grid": (2, 2), "maps": [fine, coarse], "strides": [2, 4]}

    terrabench.evaluate(model, **KNOWN)
    tokens, maps = fake.all("features")
    assert tokens["grid"] == [2, 2] and maps["strides"] == [2, 4]
    shapes = [{name: tensor["shape"] for name, tensor in sent.items()} for sent in fake.all("tensors")]
    assert shapes == [{"tokens": [1, 4, 2]}, {"map0": [1, 3, 2, 2], "map1": [1, 5, 1, 1]}]
    assert fake.all("tensors")[1]["map0"]["numbers"] == list(map(float, range(12)))


def test_a_grid_and_strides_are_inferred_where_they_are_certain(fake):
    fake.play([{"name": "a", "batches": [1], "want": "tokens"}, {"name": "b", "batches": [1], "want": "maps"}])
    terrabench.evaluate(lambda images: {"tokens": [[[1.0]] * 4], "maps": [[[[[1.0] * 2] * 2]]]}, **KNOWN)
    tokens, maps = fake.all("features")
    assert tokens["grid"] == [2, 2] and maps["strides"] == [2]


@pytest.mark.parametrize(
    ("want", "returned", "message"),
    [
        ("tokens", [[1.0]], "needs tokens from the model"),
        ("tokens", {"pooled": [[1.0]]}, "returned a dictionary with pooled"),
        ("tokens", {"tokens": [[[1.0]] * 5]}, "form no square"),
        ("tokens", {"tokens": [[[1.0]] * 5], "grid": (2, 2)}, "leave class tokens out"),
        ("maps", {"maps": [[[[[1.0] * 3] * 3]]]}, "without `strides`"),
        ("maps", {"maps": [[[[[1.0]]]]], "strides": [1, 2]}, "1 maps and 2 strides"),
        (
            "pooled",
            [[1.0], [2.0]],
            r"expected pooled \[n, d\] from the model for n = 1 images, found list of shape \[2, 1\]",
        ),
        ("pooled", "text", "found str"),
        ("pooled", [["text"]], "expected pooled"),
        ("pooled", None, "found NoneType"),
        ("pooled", [[1.0], [2.0, 3.0]][:1] + [], None),
    ],
)
def test_wrong_features_say_what_was_expected(fake, want, returned, message):
    fake.play([{"name": "m-eurosat", "batches": [1], "want": want}])
    if message is None:
        assert len(terrabench.evaluate(lambda images: returned, **KNOWN)) == 1
        return
    with pytest.raises(terrabench.Error, match=message):
        terrabench.evaluate(lambda images: returned, **KNOWN)


def test_an_exception_in_the_model_comes_back_as_itself(fake):
    class Special(Exception):
        pass

    def inner(images):
        raise Special("out of luck")

    def model(images):
        return inner(images)

    with pytest.raises(Special, match="out of luck") as caught:
        terrabench.evaluate(model, **KNOWN)
    assert "inner" in [frame.name for frame in traceback.extract_tb(caught.tb)]
    if sys.version_info >= (3, 11):
        assert "m-eurosat" in caught.value.__notes__[0]
    # The program was told, and ended.
    assert [header["text"] for header in fake.all("features")] == ["Special: out of luck"]
    assert fake.all("end") == [True]


def test_a_failure_of_the_program_is_an_error_with_its_words(fake):
    crash = "m-eurosat: reading\nerror: m-eurosat/x.hdf5: damaged\n  help: fetch it again\n"
    fake.play([{"name": "m-eurosat", "batches": [1], "crash": crash}])
    with pytest.raises(terrabench.Error) as caught:
        terrabench.evaluate(sums, **KNOWN)
    assert str(caught.value) == "m-eurosat/x.hdf5: damaged\n  help: fetch it again"
    assert caught.value.returncode == 1 and "reading" in caught.value.log


def test_a_killed_program_is_named_by_its_signal(fake):
    fake.play([{"name": "m-eurosat", "batches": [1], "crash": "", "signal": True}])
    with pytest.raises(terrabench.Error, match="SIGKILL; it may have run out of memory") as caught:
        terrabench.evaluate(sums, **KNOWN)
    assert caught.value.returncode == -9


def test_finished_cells_come_with_an_error_of_the_program(fake):
    fake.play([{"name": "a", "batches": [1]}], code=1)
    with pytest.raises(terrabench.Error) as caught:
        terrabench.evaluate(sums, **KNOWN)
    assert [record.task for record in caught.value.records] == ["a"]


def test_finished_cells_come_with_an_error_about_features(fake):
    fake.play([{"name": "a", "batches": [1]}, {"name": "b", "batches": [1]}])
    returned = iter([[[1.0]], [1.0]])
    with pytest.raises(terrabench.Error, match="expected pooled") as caught:
        terrabench.evaluate(lambda images: next(returned), **KNOWN)
    assert [record.task for record in caught.value.records] == ["a"]


def test_a_model_of_vectors_refuses_what_it_cannot_give_and_serves_the_rest(fake):
    tasks = [
        {"name": "a", "batches": [1]},
        {"name": "b", "batches": [1], "want": "tokens"},
        {"name": "c", "batches": [1]},
    ]
    fake.play(tasks)
    with pytest.raises(terrabench.Error, match="the protocol needs tokens, the model returns one vector") as caught:
        terrabench.evaluate(sums, **KNOWN)
    assert [record.task for record in caught.value.records] == ["a", "c"]


def test_unreadable_files_are_a_warning(fake):
    fake.play(code=3)
    with pytest.warns(UserWarning, match="could not be read"):
        assert len(terrabench.evaluate(sums, **KNOWN)) == 1


def test_another_version_of_the_protocol_is_refused(fake):
    fake.play(version=2)
    with pytest.raises(terrabench.Error, match="speaks version 1 .* speaks version 2"):
        terrabench.evaluate(sums, **KNOWN)


def test_context_tells_bands_and_dates(fake):
    fake.play([{"name": "m-eurosat", "batches": [2], "days": True}])
    seen = []

    def model(images, context):
        seen.append(context)
        return [[1.0]] * 2

    terrabench.evaluate(model, context=True, **KNOWN)
    (context,) = seen
    assert (context.task, context.sensor, context.bands) == ("m-eurosat", "s2-l2a", ("B04", "B03", "B02"))
    assert context.wavelengths_nm == (500.0, 500.0, 500.0)
    assert context.days.tolist() == [18000.0, 18000.0] and context.places is None


def test_progress_and_notes_are_shown_but_errors_only_once(fake, capsys):
    terrabench.evaluate(sums, **{**KNOWN, "progress": None})
    shown = capsys.readouterr().err
    assert "a note of the program" in shown and '{"progress"' not in shown


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": 3}, "can be called"),
        ({"pixels": "raw"}, "expected float32 or stored"),
        ({"pixels": "stored", "normalization": "dataset"}, "never normalised"),
        ({"size": 0}, "expected a number of pixels"),
        ({"bands": "B04"}, "expected a list of names"),
        ({"bands": []}, "at least one band"),
        ({"bands": {}}, "at least one sensor"),
        ({"impute": ["B10"]}, "expected pairs of bands"),
        ({"gives": ["vectors"]}, "found vectors"),
        ({"identity": ""}, "expected a text"),
        ({"arrays": "lists"}, "expected one of torch, numpy, memoryview"),
        ({"demo": True, "data": "x"}, "leave out data"),
    ],
)
def test_wrong_requests_start_nothing(fake, wrong, message):
    with pytest.raises(terrabench.Error, match=message):
        terrabench.evaluate(**{"model": sums, **KNOWN, **wrong})
    assert fake.seen == []


def test_an_unknown_model_is_not_cached_and_warned_about(fake):
    hidden = [open(os.devnull)]

    def model(images):
        return [[float(len(hidden))]] * images.shape[0]

    with pytest.warns(UserWarning, match="cannot tell when this model changes.*hidden"):
        terrabench.evaluate(model, arrays="memoryview", progress=False)
    (arguments,), (ready,) = fake.all("arguments"), fake.all("ready")
    assert "--no-cache" in arguments and ready["identity"].startswith("unknown:")
    hidden[0].close()


def test_defaults_of_a_model_yield_to_arguments(fake):
    class Model:
        terrabench_defaults = {"bands": ["B08"], "size": 96, "name": "mine"}

        def __call__(self, images):
            return [[1.0]] * images.shape[0]

    terrabench.evaluate(Model(), size=64, **KNOWN)
    (arguments,) = fake.all("arguments")
    assert {"--name=mine", "64", "--input-bands=B08"} <= set(arguments) and "96" not in arguments


@pytest.mark.parametrize(
    "defaults, message",
    [
        ({"bandz": ["B08"]}, "found 'bandz'\n  help: did you mean 'bands'"),
        ({"epochs": 3}, "expected keys of bands, .*found 'epochs'"),
        (["bands"], "expected a dictionary of arguments, found list"),
    ],
)
def test_unknown_defaults_of_a_model_are_refused(fake, defaults, message):
    def model(images):
        return [[1.0]] * images.shape[0]

    model.terrabench_defaults = defaults
    with pytest.raises(terrabench.Error, match=message):
        terrabench.evaluate(model, **KNOWN)
    assert fake.seen == []


def test_messages_of_the_program_name_the_arguments_of_python():
    from terrabench._errors import in_python

    said = in_python("no band\n  help: change --input-bands, or pass --missing-bands zeros; see --help")
    assert said.endswith("\n  in Python: bands for --input-bands, options=['--missing-bands', ...] for --missing-bands")
    assert in_python("it failed") == "it failed"


@pytest.mark.skipif(os.name != "posix", reason="signals as on Unix")
@pytest.mark.parametrize("where", ["model", "waiting"])
def test_ctrl_c_stops_both_sides(fake, tmp_path, where):
    fake.play([{"name": "m-eurosat", "batches": [1], "hang": where == "waiting"}])
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(Path(terrabench.__file__).parent.parent)!r})
        import terrabench
        def model(images):
            print("encoding", flush=True)
            if {where == "model"}:
                time.sleep(60)
            return [[1.0]]
        terrabench.evaluate(model, identity="x", arrays="memoryview")
    """)
    )
    # A group of its own, so that only Python gets the signal, as in a notebook.
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "encoding\n"
    time.sleep(0.3)
    started = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors and time.monotonic() - started < 20
    # No process of the group is left.
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
