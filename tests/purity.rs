//! The parts that decide do no I/O and read no clock: what they need is handed to them, so that a test or a simulation can
//! replay them. The compiler cannot say that of a module; this does.

use std::path::{Path, PathBuf};

/// Folders that hold only rules, with the words that are mere values there: a method, a status, an encoded detail.
const PURE: [(&str, &[&str]); 3] = [
    ("registry/src/catalog", &[]),
    ("client/src/balancer", &[]),
    ("gateway/src/transcode", &["http::", "tonic_types"]),
];

/// Words that bring I/O, a clock or a transport into a file. Addresses as values are `core::net`, which is allowed.
const REFUSED: [&str; 12] = [
    "tokio",
    "tonic",
    "h2::",
    "http::",
    "std::net",
    "std::fs",
    "std::io",
    "std::env",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "rand::",
];

#[test]
fn rules_know_no_transport_clock_or_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut faults = Vec::new();
    for (folder, values) in PURE {
        let files = rust_files(&root.join(folder));
        assert!(!files.is_empty(), "{folder} holds no Rust file; has it moved?");
        for file in files {
            faults.extend(refused_words(&file, values));
        }
    }
    assert!(faults.is_empty(), "pure folders use what they must not:\n{}", faults.join("\n"));
}

/// Lines of code, not of comment, that hold a refused word, `values` apart.
fn refused_words(file: &Path, values: &[&str]) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("a listed file can be read");
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let code = values.iter().fold(code.to_owned(), |code, value| code.replace(value, ""));
        for word in REFUSED.iter().filter(|word| code.contains(**word)) {
            faults.push(format!("{}:{}: {word}", file.display(), index + 1));
        }
    }
    faults
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the pure folders exist") {
        let path = entry.expect("a folder entry can be read").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
