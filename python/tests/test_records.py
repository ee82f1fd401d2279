"""Records and predictions, read from the reference of the repository and from files made here."""

import dataclasses
import json
import struct
from pathlib import Path

import pytest

import terrabench

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "demo"
SCHEMA_1 = Path(__file__).parents[2] / "tests" / "fixtures" / "record" / "schema-1.json"


def test_a_folder_of_records_is_read():
    records = terrabench.load(REFERENCE)
    assert len(records) == 16
    eurosat = records.where(model="Demo", task="m-eurosat", partition="default")[0]
    assert (eurosat.metric, eurosat.shown) == ("accuracy", "65.0 [50.0, 80.0]")
    assert eurosat.demo and eurosat.samples["test"] == 40


def test_the_folder_above_is_searched_too():
    assert len(terrabench.load(REFERENCE.parent)) == 16


def test_a_folder_without_records_says_what_was_expected(tmp_path):
    with pytest.raises(terrabench.Error, match="expected `records/` here or one level below"):
        terrabench.load(tmp_path)
    with pytest.raises(terrabench.Error, match="nowhere"):
        terrabench.load(tmp_path / "nowhere")


def test_predictions_give_the_recorded_value():
    for record in terrabench.load(REFERENCE).where(metric="accuracy"):
        predictions = record.predictions()
        assert predictions.kind == "class" and len(predictions) == len(predictions.samples)
        right = sum(int(p) == int(t) for p, t in zip(predictions.predicted, predictions.truth))
        assert 100 * right / len(predictions) == pytest.approx(record.value, abs=1e-9)


def test_predictions_of_another_record_are_refused(tmp_path):
    source = terrabench.load(REFERENCE)[0]
    (tmp_path / "records").mkdir()
    (tmp_path / "predictions").mkdir()
    raw = json.loads(source.path.read_text())
    raw["fingerprint"] = "f" * 32
    (tmp_path / "records" / source.path.name).write_text(json.dumps(raw))
    name = source.path.with_suffix(".safetensors").name
    (record,) = terrabench.load(tmp_path)
    with pytest.raises(terrabench.Error, match="were not kept"):
        record.predictions()
    data = (REFERENCE / "predictions" / name).read_bytes()
    (tmp_path / "predictions" / name).write_bytes(data)
    with pytest.raises(terrabench.Error, match="expected record ffff"):
        record.predictions()
    (tmp_path / "predictions" / name).write_bytes(data[:-1])
    with pytest.raises(terrabench.Error, match="does not fit its bytes"):
        record.predictions()


def test_schema_1_is_read(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "a.json").write_text(SCHEMA_1.read_text())
    (record,) = terrabench.load(tmp_path)
    (row,) = terrabench.load(tmp_path).to_dicts()
    assert record.value == 65.0 and row["coverage"] == "random weights" and row["git_revision"] is None
    assert row["sensor"] == "s2-l1c"


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        ("{", "not a record"),
        ("[]", "not a record"),
        ('{"schema": 3}', "schemas 1 to 2"),
        ('{"schema": 2, "cell": {}}', "'interval' is missing"),
    ],
)
def test_bad_files_are_listed_and_stop_nothing(tmp_path, contents, problem):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "good.json").write_text(SCHEMA_1.read_text())
    (tmp_path / "records" / "bad.json").write_text(contents)
    (tmp_path / "records" / ".hidden.json").write_text("half")
    with pytest.warns(UserWarning, match="bad.json"):
        records = terrabench.load(tmp_path)
    assert len(records) == 1 and len(records.unreadable) == 1
    assert problem in records.unreadable[0]


def test_a_table_is_printed_with_the_notice_of_demos():
    records = terrabench.load(REFERENCE).where(model="Demo", task="m-eurosat")
    assert repr(records).splitlines() == [
        "task       protocol  partition    metric    value",
        "m-eurosat  knn       0.01x_train  accuracy  47.5 [32.5, 62.5]",
        "m-eurosat  knn       default      accuracy  65.0 [50.0, 80.0]",
        "Demo: generated data. These numbers say nothing about any model or benchmark.",
    ]
    assert "<td>47.5 [32.5, 62.5]</td>" in records._repr_html_()
    noted = [dataclasses.replace(record, demo=False, notes=("few: only 4", "far: 9 km")) for record in records]
    assert repr(terrabench.Records(noted)).splitlines()[3:] == [
        "Notes on m-eurosat: few, far (each record's `notes` say more)"
    ]
    assert repr(terrabench.Records()) == "no records"


def test_html_is_escaped(tmp_path):
    raw = json.loads(SCHEMA_1.read_text())
    raw["cell"]["task"] = "<script>"
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "a.json").write_text(json.dumps(raw))
    assert "<script>" not in terrabench.load(tmp_path)._repr_html_()


def test_records_are_a_sequence():
    records = terrabench.load(REFERENCE)
    assert isinstance(records[:2], terrabench.Records) and len(records[:2] + records[2:]) == 16
    assert records == records[:2] + records[2:] and list(records)[0] is records[0]
    with pytest.raises(AttributeError):
        records.where(tsak="m-eurosat")


def test_rows_have_the_columns_of_the_programs_frame():
    source = (Path(__file__).parents[2] / "src" / "record" / "frame.rs").read_text()
    expected = [line.split('"')[1] for line in source.splitlines() if line.strip().startswith('"')]
    (row, *_) = terrabench.load(REFERENCE).to_dicts()
    assert list(row) == expected
    assert json.loads(row["samples"]) == {"test": 16, "train": 4}


def test_pandas():
    pytest.importorskip("pandas", reason="needs pandas")
    frame = terrabench.load(REFERENCE).to_pandas()
    assert frame.shape[0] == 16 and frame["value"].dtype == "float64"
    assert terrabench.Records().to_pandas().shape[0] == 0


def test_polars():
    polars = pytest.importorskip("polars", reason="needs polars")
    frame = terrabench.load(REFERENCE).to_polars()
    assert frame.height == 16 and frame.schema["low"] == polars.Float64 and frame.schema["seed"] == polars.UInt64
    assert terrabench.Records().to_polars().width == frame.width


def test_a_missing_library_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(terrabench.Error, match="pip install pandas"):
        terrabench.load(REFERENCE).to_pandas()


def test_damaged_safetensors_are_refused():
    from terrabench import _safetensors

    for data in [
        b"",
        b"\x00" * 7,
        struct.pack("<Q", 100) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 1) + b"{",
    ]:
        with pytest.raises(_safetensors.Malformed):
            _safetensors.read(data)
    for entry in [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "X", "shape": [], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1]},
        3,
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
    ]:
        text = json.dumps({"a": entry}).encode()
        with pytest.raises(_safetensors.Malformed, match="`a`"):
            _safetensors.read(struct.pack("<Q", len(text)) + text + b"\x00" * 4)


def test_safetensors_are_written_as_they_are_read():
    from terrabench import _safetensors
    from terrabench._safetensors import Tensor

    tensors = {"b": Tensor("U8", (3,), memoryview(b"abc")), "a": Tensor("F64", (1,), memoryview(b"12345678"))}
    data = b"".join(_safetensors.pieces(tensors, {"key": "value"}))
    found, metadata = _safetensors.read(data)
    assert {name: (t.dtype, t.shape, bytes(t.data)) for name, t in found.items()} == {
        name: (t.dtype, t.shape, bytes(t.data)) for name, t in tensors.items()
    }
    assert metadata == {"key": "value"} and (len(data) - 11) % 8 == 0
