//! Tests of the restricted unpickler.

use std::collections::BTreeMap;

use crate::common;
use terrabench::formats::pickle::{Limits, Value, View, bytes_literal, read, read_first};

/// Protocols 0 to 5 and two versions of numpy write the same dictionary.
#[test]
fn every_protocol_gives_the_same_values() {
    let text = std::fs::read_to_string(common::fixture("pickle/protocols.json")).unwrap();
    let pickles: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
    assert_eq!(pickles.len(), 9);
    for (name, literal) in &pickles {
        let bytes = bytes_literal(literal).unwrap();
        let pickle = read(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let get = |key: &str| pickle.root().get(key).unwrap_or_else(|| panic!("{name}: no {key}"));
        let integers =
            |key: &str| get(key).integers().unwrap_or_else(|found| panic!("{name}: {key}: {found}"));
        let floats = |key: &str| get(key).floats().unwrap_or_else(|found| panic!("{name}: {key}: {found}"));

        assert_eq!(integers("label"), (vec![4], vec![0, 1, 1, 0]), "{name}");
        let bands: Vec<_> =
            get("bands_order").items().unwrap().map(|item| item.value().as_str().unwrap()).collect();
        assert_eq!(bands, ["02 - Blue", "03 - Green_2019-11-05"], "{name}");

        for (key, number) in
            [("class", 7), ("negative", -(1 << 40)), ("byte", 255), ("short", 65535), ("zero_long", 0)]
        {
            assert_eq!(get(key).value(), &Value::Int(number), "{name}: {key}");
        }
        assert_eq!(get("big").value(), &Value::BigInt, "{name}");
        assert_eq!(get("wide").value(), &Value::BigInt, "{name}");
        assert_eq!(get("float").value(), &Value::Float(-1.5e-300), "{name}");
        assert_eq!(get("none").value(), &Value::None, "{name}");
        assert_eq!(get("true").value(), &Value::Bool(true), "{name}");
        assert_eq!(get("false").value(), &Value::Bool(false), "{name}");
        assert_eq!(get("text").value().as_str(), Some("é€😀\n'\"\\"), "{name}");

        let all: Vec<u8> = (0..=255).collect();
        for (key, expected) in [("bytes", &all[..]), ("empty", b""), ("bytearray", b"\x00\xffab")] {
            let Value::Bytes(bytes) = get(key).value() else { panic!("{name}: {key} is {}", get(key)) };
            assert_eq!(bytes.as_ref(), expected, "{name}: {key}");
        }

        for (key, numbers) in [
            ("tuple0", &[][..]),
            ("tuple1", &[1]),
            ("tuple2", &[1, 2]),
            ("tuple3", &[1, 2, 3]),
            ("tuple4", &[1, 2, 3, 4]),
            ("set", &[5]),
            ("frozenset", &[6]),
        ] {
            assert_eq!(integers(key), (vec![numbers.len()], numbers.to_vec()), "{name}: {key}");
        }
        assert_eq!(get("ordered").get("b").unwrap().value(), &Value::Int(2), "{name}");

        assert_eq!(get("scalar").value(), &Value::Int(-5), "{name}");
        assert_eq!(get("scalar_f").value(), &Value::Float(0.25), "{name}");
        assert_eq!(get("scalar_b").value(), &Value::Bool(true), "{name}");
        assert_eq!(get("scalar_u").value(), &Value::BigInt, "{name}");

        assert_eq!(integers("fortran"), (vec![2, 3, 4], (-12..12).collect()), "{name}");
        assert_eq!(floats("big_endian"), (vec![1, 2], vec![1.5, -2.0]), "{name}");
        assert!(get("big_endian").integers().is_err(), "{name}");
        assert_eq!(floats("half"), (vec![2], vec![0.5, -3.0]), "{name}");
        assert_eq!(integers("bools"), (vec![2], vec![1, 0]), "{name}");
        assert_eq!(integers("bytes_u1"), (vec![2, 2], vec![255, 0, 1, 2]), "{name}");
        assert_eq!(floats("f8"), (vec![1], vec![1e300]), "{name}");
        assert_eq!(floats("u8"), (vec![2], vec![1.0, 9_223_372_036_854_775_808.0]), "{name}");
        assert!(get("u8").integers().is_err(), "{name}");
        assert_eq!(integers("i1"), (vec![2], vec![-128, 127]), "{name}");
        assert_eq!(integers("i4"), (vec![], vec![-70000]), "{name}");
        assert_eq!(floats("empty_array"), (vec![0, 3], vec![]), "{name}");

        // A list that contains itself, and one that is contained twice in another.
        let inner = get("loop").items().unwrap().nth(1).unwrap();
        assert_eq!(inner.items().unwrap().len(), 2, "{name}");
        assert_eq!(get("shared").items().unwrap().len(), 2, "{name}");

        // Objects that only code could create are reported by name and nothing more.
        for (key, class) in
            [("date", "datetime.date"), ("time", "datetime.datetime"), ("objects", "numpy.ndarray")]
        {
            assert!(matches!(get(key).value(), Value::Object { .. }), "{name}: {key} is {}", get(key));
            assert_eq!(get(key).to_string(), format!("an object of {class}"), "{name}");
        }
        assert!(matches!(get("strings").value(), Value::Object { .. }), "{name}");
        assert!(matches!(get("exception").value(), Value::Object { .. }), "{name}");
        assert!(matches!(get("function").value(), Value::Global { .. }), "{name}");
    }
}

/// Pickles as Python 2 wrote them, by hand: its `str` is bytes, and a class may be named without a helper
/// function.
#[test]
fn reads_the_opcodes_of_python_2() {
    let bytes = b"(dp0\nS'label'\np1\nI3\nsS'long'\nL-5L\nsU\x05bands](U\x0201T\x02\x00\x00\x0002esS'it'\n(imodule\nClass\ns.";
    let pickle = read(bytes).unwrap();
    let root = pickle.root();
    assert_eq!(root.get("label").unwrap().value(), &Value::Int(3));
    assert_eq!(root.get("long").unwrap().value(), &Value::Int(-5));
    let bands: Vec<_> =
        root.get("bands").unwrap().items().unwrap().map(|item| item.value().as_str()).collect();
    assert_eq!(bands, [Some("01"), Some("02")]);
    assert_eq!(root.get("it").unwrap().to_string(), "an object of module.Class");
}

#[test]
fn pop_removes_a_mark_on_top() {
    assert_eq!(read(b"N(0.").unwrap().root().value(), &Value::None);
    assert_eq!(read(b"N(K\x01K\x021.").unwrap().root().value(), &Value::None);
}

#[test]
fn decodes_bytes_literals() {
    let decoded = |text| bytes_literal(text).unwrap();
    assert_eq!(decoded(r"b''"), b"");
    assert_eq!(decoded(r#"b'a"b'"#), b"a\"b");
    assert_eq!(decoded(r#"b"it's""#), b"it's");
    assert_eq!(decoded(r"b'\x80\x04\t\n\r\\\'\''"), b"\x80\x04\t\n\r\\''");
    assert_eq!(decoded(r"b'\0\07\177\377\1234\a\b\f\v'"), b"\0\x07\x7f\xff\x534\x07\x08\x0c\x0b");
    assert_eq!(decoded(r"B'\q'"), b"\\q");
    assert_eq!(decoded(" b'x'\n"), b"x");
    for wrong in [
        "", "b", "b'", "'x'", "b'x\"", "b'x", r"b'\x8'", r"b'\xgg'", r"b'\'", r"b'\777'", "b'a'b'", "b'é'",
        "bytes",
    ] {
        assert!(bytes_literal(wrong).is_err(), "{wrong}");
    }
}

/// Returns the message of a refused pickle.
fn refused(bytes: &[u8]) -> String {
    match read(bytes) {
        Ok(pickle) => panic!("read as {}", pickle.root()),
        Err(refusal) => refusal.to_string(),
    }
}

#[test]
fn damaged_pickles_are_refused() {
    let cases: &[(&[u8], &str)] = &[
        (b"", "truncated"),
        (b"\x80\x04", "truncated"),
        (b"\x80\x09N.", "got 9"),
        (b".", "the stack is empty"),
        (b"(.", "the stack is empty"),
        (b"t.", "no mark"),
        (b"R.", "the stack is empty"),
        (b"N\x85R.", "the stack is empty"),
        (b"NNR.", "not a tuple"),
        (b"h\x05.", "no value at index 5"),
        (b"NK\x01a.", "not a list or set"),
        (b"N(K\x01K\x02u.", "not a dictionary"),
        (b"}(K\x01u.", "key has no value"),
        (b"K\x01K\x02\x93.", "not a string"),
        (b"Ixyz\n.", "not an integer"),
        (b"I-\n.", "not an integer"),
        (b"Fxyz\n.", "not a number"),
        (b"\x8c\x02\xff\xfe.", "not valid UTF-8"),
        (b"S'abc\n.", "quotes"),
        (b"V\\u12\n.", "\\u escape"),
        (b"V\\ud800\n.", "\\u escape"),
        (b"g-1\n.", "not an index"),
        (b"\xff.", "unknown instruction 0xff"),
        (b"Pid\n.", "persistent id"),
        (b"\x82\x01.", "extension code"),
        (b"\x97.", "out-of-band"),
    ];
    for (bytes, message) in cases {
        let refusal = refused(bytes);
        assert!(refusal.contains(message), "{bytes:?}: {refusal}");
        assert!(refusal.contains("pickle at byte"), "{refusal}");
    }
}

/// Every prefix of a real pickle is damaged, and so is every changed byte; neither may panic.
#[test]
fn damaged_pickles_never_panic() {
    let text = std::fs::read_to_string(common::fixture("pickle/protocols.json")).unwrap();
    let pickles: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
    for literal in pickles.values() {
        let bytes = bytes_literal(literal).unwrap();
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err());
        }
        for place in 0..bytes.len() {
            for flip in [0x01, 0x80] {
                let mut damaged = bytes.clone();
                damaged[place] ^= flip;
                if let Ok(pickle) = read(&damaged) {
                    visit(pickle.root());
                }
            }
        }
    }
}

/// Queries everything about a value and those directly inside it.
fn visit(view: View) {
    let _ = (view.to_string(), view.integers(), view.floats(), view.get("label"));
    if let Value::Dict(entries) = view.value() {
        for (_, value) in entries {
            let value = view.at(*value);
            let _ = (value.to_string(), value.integers(), value.floats());
        }
    }
}

#[test]
fn code_is_reported_but_not_executed() {
    let folder = tempfile::tempdir().unwrap();
    let witness = folder.path().join("witness");
    let command = format!("touch {}", witness.display());
    let mut bytes = b"\x80\x02}U\x05label".to_vec();
    bytes.extend(b"cos\nsystem\nU");
    bytes.push(u8::try_from(command.len()).unwrap());
    bytes.extend(command.as_bytes());
    bytes.extend(b"\x85Rs.");
    let pickle = read(&bytes).unwrap();
    assert_eq!(pickle.root().get("label").unwrap().to_string(), "an object of os.system");
    assert!(pickle.root().get("label").unwrap().integers().is_err());
    assert!(!witness.exists());
}

#[test]
fn declared_lengths_are_checked_before_allocating() {
    for opcode in [&b"B"[..], b"X", b"T", b"\x8b"] {
        let bytes = [opcode, &u32::MAX.to_le_bytes(), b"abc."].concat();
        assert!(refused(&bytes).contains("expected 4294967295 more bytes"), "{opcode:?}");
    }
    for opcode in [&b"\x8d"[..], b"\x8e", b"\x96"] {
        let bytes = [opcode, &u64::MAX.to_le_bytes(), b"abc."].concat();
        assert!(refused(&bytes).contains("18446744073709551615 more bytes"), "{opcode:?}");
    }
    // A memo index that would need gigabytes.
    assert!(refused(b"Nr\xff\xff\xff\xff.").contains("limit"));
    // Arrays that declare more than they contain, also such that the product overflows.
    let array = |extent: &[u8]| {
        let mut bytes =
            b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R".to_vec();
        bytes.extend(b"(K\x01");
        bytes.extend(extent);
        bytes.extend(b"cnumpy\ndtype\nU\x02i8K\x00K\x01\x87R\x89U\x08\x00\x00\x00\x00\x00\x00\x00\x00tb.");
        bytes
    };
    let one = array(b"K\x01\x85");
    assert_eq!(read(&one).unwrap().root().integers(), Ok((vec![1], vec![0])));
    assert!(refused(&array(b"J\xff\xff\xff\x7f\x85")).contains("8 bytes of data"));
    let huge = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f".repeat(2);
    assert!(refused(&array(&[&huge[..], b"\x86"].concat())).contains("8 bytes of data"));
    assert!(refused(&array(b"J\xff\xff\xff\xff\x85")).contains("not a list of sizes"));
    assert!(refused(&array(&[b"(", &b"K\x01".repeat(100)[..], b"t"].concat())).contains("100 dimensions"));
}

#[test]
fn depth_and_number_of_values_are_bounded() {
    let depth = usize::from(Limits::SAMPLE.depth);
    let nested = |depth: usize| [&b"N"[..], &b"\x85".repeat(depth), b"."].concat();
    assert!(read(&nested(depth)).is_ok());
    assert!(refused(&nested(depth + 1)).contains("64 levels"));
    assert!(refused(&nested(5_000_000)).contains("64 levels"));
    // Lists nested from the outside in.
    let lists = [&b"]".repeat(1_000_000)[..], &b"a".repeat(999_999), b"."].concat();
    assert!(refused(&lists).contains("64 levels"));
    // One mark per byte, one copy of the top per byte, one value per byte.
    assert!(refused(&b"(".repeat(Limits::SAMPLE.values + 2)).contains("limit"));
    assert!(refused(&[&b"N"[..], &b"2".repeat(Limits::SAMPLE.values + 2)].concat()).contains("limit"));
    assert!(refused(&b"N0".repeat(Limits::SAMPLE.values + 2)).contains("limit"));
    assert!(refused(&vec![b'N'; 17 << 20]).contains("more than the limit"));
}

/// Ten lists, each containing the previous one ten times: ten to the tenth values if copied.
#[test]
fn shared_values_are_not_copied() {
    let mut bytes = b"]q\x00".to_vec();
    for level in 1..=10 {
        bytes.extend(b"](");
        bytes.extend([b'h', level - 1].repeat(10));
        bytes.extend([b'e', b'q', level]);
    }
    bytes.push(b'.');
    let pickle = read(&bytes).unwrap();
    assert_eq!(pickle.root().items().unwrap().len(), 10);
    // A megabyte of text, converted to bytes many times over.
    let mut bytes =
        [&b"X\x00\x00\x10\x00"[..], &vec![b'a'; 1 << 20], b"q\x00c_codecs\nencode\nq\x010"].concat();
    bytes.extend(b"h\x01h\x00U\x06latin1\x86R".repeat(1000));
    bytes.push(b'.');
    assert!(refused(&bytes).contains("unpacks to more than"));
}

/// A checkpoint's tensors refer to storages outside the pickle; a sample's pickle must not.
#[test]
fn persistent_ids_are_kept_for_checkpoints_only() {
    let bytes = b"U\x07storageQ.and more";
    assert!(refused(bytes).contains("persistent id"));
    let (pickle, length) = read_first(bytes, &Limits::CHECKPOINT).unwrap();
    assert_eq!(length, 11);
    let Value::Persistent(id) = pickle.root().value() else { panic!("read as {}", pickle.root()) };
    assert_eq!(pickle.root().at(*id).value().as_str(), Some("storage"));
}

/// The parts of an object can be inspected; dictionary-like objects keep their entries.
#[test]
fn objects_keep_their_parts() {
    let bytes = b"cmy.own\nDict\n)\x81(U\x01aK\x01U\x01bK\x02u}U\x04nameK\x03sb.";
    let pickle = read(bytes).unwrap();
    let root = pickle.root();
    let Value::Object { arguments: Some(arguments), state: Some(state), entries, .. } = root.value() else {
        panic!("read as {root}")
    };
    assert_eq!(root.at(*arguments).items().unwrap().len(), 0);
    assert_eq!(root.at(*state).get("name").unwrap().value(), &Value::Int(3));
    assert_eq!(entries.len(), 2);
    let old = b"ccopy_reg\n_reconstructor\n(cmy.own\nDict\nc__builtin__\ndict\n}tR.";
    assert_eq!(read(old).unwrap().root().to_string(), "an object of my.own.Dict");
}

/// File names may contain half a surrogate pair, which Python writes but Rust's strings cannot represent.
#[test]
fn half_a_surrogate_pair_is_replaced() {
    let pickle = read(b"\x8c\x05a\xed\xb3\xbfb.").unwrap();
    assert_eq!(pickle.root().value().as_str(), Some("a\u{fffd}b"));
}
