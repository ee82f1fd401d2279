//! README and docs/: links lead somewhere, commands parse, the table of contents is complete, quoted messages exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use terrabench::cli::Cli;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder whose name ends in `extension`.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|of| of == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// README, docs/ and examples/, by path and text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths = vec![root().join("README.md"), root().join("python/README.md")];
    paths.extend(["docs", "examples"].iter().flat_map(|folder| files(&root().join(folder), "md")));
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The text outside blocks of code.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let outside = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    outside.map(|line| format!("{line}\n")).collect()
}

/// A heading's anchor as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text);
    let headings = headings.lines().filter_map(|line| line.strip_prefix('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// The targets of the links and pictures of a page.
fn links(text: &str) -> Vec<String> {
    let text = prose(text);
    let after = text.split("](").skip(1);
    after.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

#[test]
fn links_lead_to_files_and_headings() {
    let (mut dead, mut count) = (Vec::new(), 0);
    for (page, text) in pages() {
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            count += 1;
            let (path, fragment) = link.split_once('#').map_or((link.as_str(), None), |(p, f)| (p, Some(f)));
            let target = if path.is_empty() { page.clone() } else { page.with_file_name("").join(path) };
            let is_dead = match fragment {
                _ if !target.exists() => true,
                Some(fragment) => !anchors(&std::fs::read_to_string(&target).unwrap()).contains(fragment),
                None => false,
            };
            if is_dead {
                dead.push(format!("{}: {link}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(count > 60, "only {count} links were found");
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

#[test]
fn the_table_of_contents_lists_every_page() {
    let docs = root().join("docs");
    let summary = std::fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let listed: BTreeSet<PathBuf> = links(&summary).iter().map(|link| docs.join(link)).collect();
    let pages = files(&docs, "md").into_iter().filter(|page| !page.ends_with("SUMMARY.md"));
    assert_eq!(listed, pages.collect(), "left: docs/SUMMARY.md; right: the files in docs/");
}

/// Commands of `cargo xtask` that the program itself does not have.
const OF_CHECKOUT: [(&str, &str); 7] = [
    ("test", "Test(test::TestArgs)"),
    ("wheel", "Wheel(wheel::WheelArgs)"),
    ("libtorch", "Libtorch("),
    ("onnxruntime", "Onnxruntime("),
    ("fuzz", "Fuzz("),
    ("faults", "Faults("),
    ("perf", "Perf("),
];

/// The words of the program's command line in a line of shell, if it is one.
fn command(line: &str) -> Option<Vec<String>> {
    let words = shlex::split(line)?;
    let is_assignment =
        |word: &&String| word.contains('=') && word.starts_with(|c: char| c.is_ascii_uppercase());
    let words: Vec<String> = words.iter().skip_while(is_assignment).cloned().collect();
    let arguments = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["cargo", "xtask", ..] => words.get(2..)?,
        ["terrabench", ..] | ["time", "terrabench", ..] => {
            words.iter().position(|word| word == "terrabench").and_then(|place| words.get(place + 1..))?
        }
        _ => return None,
    };
    let end = |word: &&String| !matches!(word.as_str(), "|" | ">" | ">>" | "&&" | "||" | ";" | "&" | "2>");
    Some(arguments.iter().take_while(end).cloned().collect())
}

/// Why the program refuses a command line; `strictly`: it must be complete.
fn refusal(arguments: &[String], strictly: bool) -> Option<String> {
    // Placeholders: `cargo xtask COMMAND`, `--task …`.
    let is_open = |word: &String| word.contains('…') || word == "..." || word == "COMMAND";
    if arguments.iter().any(is_open) {
        return None;
    }
    let first = arguments.first().map(String::as_str);
    if let Some((_, variant)) = OF_CHECKOUT.iter().find(|(name, _)| first == Some(name)) {
        let source = std::fs::read_to_string(root().join("xtask/src/main.rs")).unwrap();
        return (!source.contains(variant)).then(|| format!("xtask has no {variant}"));
    }
    let words = std::iter::once("terrabench").chain(arguments.iter().map(String::as_str));
    let error = Cli::of_words(words).err()?;
    let is_fine = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
        ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => !strictly,
        _ => false,
    };
    (!is_fine).then(|| error.to_string())
}

/// Lines of shell with continued lines joined.
fn joined(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut all = vec![String::new()];
    for line in lines {
        let last = all.last_mut().unwrap();
        match line.trim_end().strip_suffix('\\') {
            Some(part) => last.push_str(part),
            None => {
                last.push_str(&line);
                all.push(String::new());
            }
        }
    }
    all
}

#[test]
fn commands_in_blocks_of_shell_parse() {
    let (mut refused, mut count) = (Vec::new(), 0);
    for (page, text) in pages() {
        let mut is_shell = false;
        let lines = text.lines().filter(|line| {
            if line.trim_start().starts_with("```") {
                is_shell = line.trim_start() == "```sh";
                return false;
            }
            is_shell
        });
        for line in joined(lines.map(str::to_owned)) {
            let Some(arguments) = command(&line) else { continue };
            count += 1;
            if let Some(reason) = refusal(&arguments, true) {
                refused.push(format!("{}: {line}\n{reason}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(count > 60, "only {count} commands were found");
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn commands_in_sentences_and_tables_parse() {
    let (mut refused, mut count) = (Vec::new(), 0);
    for (page, text) in pages() {
        let text = prose(&text);
        // Between backquotes; every second part.
        for code in text.split('`').skip(1).step_by(2) {
            let Some(arguments) = command(&code.replace('\n', " ")) else { continue };
            count += 1;
            if let Some(reason) = refusal(&arguments, false) {
                refused.push(format!("{}: {code}\n{reason}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(count > 40, "only {count} commands were found");
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn examples_of_the_help_parse() {
    let (mut refused, mut count) = (Vec::new(), 0);
    for file in ["src/cli/args.rs", "src/cli/fetch_args.rs"] {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        // Only constants hold lines that begin so; `\\` at the end is one backslash there.
        let lines = text.lines().filter(|line| line.starts_with("  "));
        let unescaped =
            lines.map(|line| line.trim_end_matches(';').replace("\\\"", "'").replace("\\\\", "\\"));
        for line in joined(unescaped) {
            let line = line.trim_end_matches('"');
            let Some(arguments) = command(line.trim()) else { continue };
            count += 1;
            refused.extend(refusal(&arguments, true).map(|reason| format!("{line}\n{reason}")));
        }
    }
    assert!(count > 30, "only {count} examples were found");
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn the_readme_begins_with_the_two_commands() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let first = readme.lines().position(|line| line.starts_with("```sh")).unwrap();
    assert!(first < 14, "the first block of commands is on line {first}");
    let block: Vec<&str> =
        readme.lines().skip(first + 1).take_while(|line| !line.starts_with("```")).collect();
    assert_eq!(block.len(), 2);
    assert!(block[0].starts_with("cargo xtask bench geobench --demo "), "{block:?}");
    assert!(block[1].starts_with("cargo xtask test "), "{block:?}");
}

#[test]
fn messages_in_troubleshooting_exist_in_the_program() {
    let page = std::fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    // Formats are written over several lines.
    let sources: String = files(&root().join("src"), "rs")
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect::<String>()
        .replace("\\\n", "")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let table = page.split("## Exit codes").next().unwrap();
    let mut count = 0;
    for row in table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| message")) {
        let message = row.split(" | ").next().unwrap();
        // Parts between backquotes; `…` stands for what differs.
        for quoted in message.split('`').skip(1).step_by(2) {
            for part in quoted.split('…').map(str::trim).filter(|part| part.len() > 2) {
                count += 1;
                assert!(sources.contains(part), "no message contains `{part}`: {row}");
            }
        }
    }
    assert!(count > 12, "only {count} messages were found");
}

#[test]
fn every_protocol_has_a_page_that_names_it() {
    let pages: String = files(&root().join("docs/protocols"), "md")
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    for file in files(&root().join("configs/protocols"), "toml") {
        let name = file.file_stem().unwrap().to_str().unwrap();
        assert!(
            pages.contains(&format!("`{name}`")) || pages.contains(&format!("--protocol {name}`")),
            "{name}"
        );
    }
}
