//! Errors have a kind, a file and a source.

use std::error::Error as _;
use std::path::Path;

use terrabench::error::AtPath;
use terrabench::home::Home;
use terrabench::model::config::ModelConfig;
use terrabench::protocol::ProtocolConfig;
use terrabench::{Error, ErrorKind};

#[test]
fn a_missing_file_is_not_found_and_keeps_the_systems_error() {
    let error = std::fs::read("no/such/file").at("no/such/file").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.path(), Some(Path::new("no/such/file")));
    let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>()).unwrap();
    assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_file_of_another_form_is_damaged_and_keeps_the_parsers_error() {
    let error = serde_json::from_str::<u32>("{").at("a.json").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.source().unwrap().is::<serde_json::Error>(), "{error}");
}

#[test]
fn an_unknown_protocol_is_not_found_and_an_unknown_sensor_is_a_request() {
    let home = Home::find().unwrap();
    let error = ProtocolConfig::load(&home, "no-such-protocol").unwrap_err();
    assert_eq!((error.kind(), error.remedy().is_empty()), (ErrorKind::NotFound, false), "{error}");
    let model = ModelConfig::load(&home, "croma-b").unwrap();
    let error = model.sensor("s3".parse().unwrap()).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Request, None), "{error}");
}

#[test]
fn rewording_keeps_kind_file_and_remedy() {
    let error =
        Error::io("a", "full").help("free some space").reworded(|problem| format!("cannot pack: {problem}"));
    assert_eq!(error.to_string(), "a: cannot pack: full\n  help: free some space");
    assert_eq!(error.kind(), ErrorKind::Io);
}
