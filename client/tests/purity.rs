//! The balancer knows no runtime, no transport, no clock and no files.

use std::fs;
use std::path::Path;

const REFUSED: [&str; 12] = [
    "tokio",
    "tonic",
    "h2::",
    "http::",
    "std::net",
    "std::fs",
    "std::io",
    "std::time",
    "std::thread",
    "std::sync",
    "rand::",
    "unsafe",
];

#[test]
fn the_balancer_is_pure() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/balancer");
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let source = fs::read_to_string(&path).unwrap();
        for word in REFUSED {
            assert!(!source.contains(word), "{} has {word}", path.display());
        }
        files += 1;
    }
    assert!(files >= 3, "the balancer has moved; this test looks at nothing");
}
