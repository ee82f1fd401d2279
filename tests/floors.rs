//! The house: each floor knows only those below it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// From the ground up, as in ARCHITECTURE.md. Modules of one line do not know each other.
const FLOORS: &[&[&str]] = &[
    &["error"],
    &["stop"],
    &["claims", "console", "files", "program", "progress", "suggest"],
    &["libtorch", "onnxruntime", "device", "canvas", "metrics"],
    &["home"],
    &["task"],
    &["remedy", "transform"],
    &["config"],
    &["random"],
    &["formats"],
    &["data"],
    &["demo"],
    &["nn"],
    &["solve"],
    &["model"],
    &["locations"],
    &["score"],
    &["audit"],
    &["features"],
    &["train"],
    &["protocol"],
    &["record"],
    &["run"],
    &["report"],
    &["gate"],
    &["fetch"],
    &["doctor"],
    &["cli", "fuzzing"],
];

/// The floor of each module.
fn floors() -> BTreeMap<&'static str, usize> {
    let numbered = FLOORS.iter().enumerate();
    numbered.flat_map(|(floor, modules)| modules.iter().map(move |module| (*module, floor))).collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules of the crate's root that a source names, in `use` lines and in paths. Comments do not count.
fn named(source: &str) -> BTreeSet<String> {
    let code: String =
        source.lines().map(|line| line.split("//").next().unwrap_or("").to_owned() + "\n").collect();
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let is_whole = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let rest = &code[at + "crate::".len()..];
        if !is_whole {
            continue;
        }
        let word = |text: &str| -> String {
            text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        match rest.strip_prefix('{') {
            None => drop(named.insert(word(rest))),
            Some(list) => {
                // Names at the first level of the braces.
                let (mut depth, mut item) = (0, String::new());
                for c in list.chars() {
                    match c {
                        '}' if depth == 0 => break,
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => drop(named.insert(word(&std::mem::take(&mut item)))),
                        other => item.push(other),
                    }
                }
                named.insert(word(&item));
            }
        }
    }
    named
}

#[test]
fn no_floor_knows_one_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let floors = floors();
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 150, "{} files", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let place = file.strip_prefix(&root).unwrap();
        let own = place.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if ["lib", "main"].contains(&own.as_str()) {
            continue;
        }
        let own_floor =
            floors.get(own.as_str()).unwrap_or_else(|| panic!("`{own}` has no floor in this test"));
        for module in named(&std::fs::read_to_string(&file).unwrap()) {
            let Some(floor) = floors.get(module.as_str()).filter(|_| module != own) else { continue };
            if floor >= own_floor {
                wrong.push(format!("{} uses {module}", place.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows up or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn names_in_lists_and_paths_are_seen_and_comments_are_not() {
    let source = "use crate::{a::{b, c}, d, Error};\nfn f() { crate::e::g(); } // crate::h\nuse terrabench_crate::i;\n";
    let found = named(source);
    assert_eq!(found, ["Error", "a", "d", "e"].map(str::to_owned).into());
}
