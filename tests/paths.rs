//! Every file that a comment, the README, the guide or another text names is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// All files of the package, as paths from its root. Not what is built from them.
fn files(root: &Path) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = folder.join(&name);
            if !entry.file_type().unwrap().is_dir() {
                files.insert(path.into_os_string().into_string().unwrap());
            } else if name != "target" && name != ".git" {
                folders.push(path);
            }
        }
    }
    files
}

/// What in a file is text for people: all of Markdown, and comments elsewhere.
fn prose<'a>(path: &str, line: &'a str) -> Option<&'a str> {
    let comment = |start: &str| line.find(start).map(|at| &line[at..]);
    match path.rsplit_once('.') {
        Some((_, "md")) => Some(line),
        // Not the two slashes of a URL in a string.
        Some((_, "rs")) if !line.contains("\"http") => comment("//"),
        Some((_, "toml")) => comment("#"),
        _ => None,
    }
}

/// Those words that look like a file or a folder of this package.
fn paths(prose: &str) -> impl Iterator<Item = &str> {
    let is_in_path = |c: char| c.is_ascii_alphanumeric() || "_-./*".contains(c);
    let words = prose.split(move |c| !is_in_path(c)).map(|word| word.trim_end_matches('.'));
    words.filter(|word| {
        let is_source = word.ends_with(".rs") || word.ends_with(".md");
        let is_below = ["src/", "tests/", "benches/", "examples/"];
        is_source && !word.starts_with('/')
            || is_below.iter().any(|folder| word.starts_with(folder))
    })
}

/// Whether a file, or all of a folder, is called that: from the root, or from any folder within,
/// as in "see `sys/call.rs`".
fn names(path: &str, file: &str) -> bool {
    let (first, last) = path.split_once('*').unwrap_or((path, ""));
    let mut ends = file.match_indices('/').map(|(at, _)| &file[at + 1..]).chain([file]);
    ends.any(|end| match path.contains('*') {
        true => end.starts_with(first) && end.ends_with(last),
        false => end
            .strip_prefix(path.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    })
}

#[test]
fn every_file_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = files(root);
    // A package that was published is without the crate of the peers, which is one of its own.
    let is_published = !root.join("benches/peers").exists();
    let (mut named, mut missing) = (0, Vec::new());
    for file in &files {
        let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
        for (number, line) in text.lines().enumerate() {
            for path in prose(file, line).into_iter().flat_map(paths) {
                named += 1;
                let absent = is_published && path.starts_with("benches/peers");
                let path = path.trim_start_matches("../");
                if !absent && !files.iter().any(|file| names(path, file)) {
                    missing.push(format!("{file}:{}: {path}", number + 1));
                }
            }
        }
    }
    assert!(named > 50, "{named}");
    assert!(missing.is_empty(), "there is no such file:\n{}", missing.join("\n"));
}

#[test]
fn a_name_of_a_file_is_told_from_other_words() {
    let found = |text: &'static str| paths(text).collect::<Vec<_>>();
    assert_eq!(found("see `sys/call.rs`, and (README.md)."), ["sys/call.rs", "README.md"]);
    assert_eq!(
        found("src/poller/*.rs and benches/instructions"),
        ["src/poller/*.rs", "benches/instructions"]
    );
    assert!(found("e.g. a.out, and/or 1.5 of docs.rs/x https://docs.rs").is_empty());
    for (path, file, is_it) in [
        ("sys/call.rs", "src/sys/call.rs", true),
        ("call.rs", "src/sys/call.rs", true),
        ("all.rs", "src/sys/call.rs", false),
        ("src/models/connection.rs", "src/connection.rs", false),
        ("src/poller/*.rs", "src/poller/epoll.rs", true),
        ("src/sys", "src/sys/call.rs", true),
        ("benches/peers/", "benches/peers/README.md", true),
        ("src/sy", "src/sys/call.rs", false),
    ] {
        assert_eq!(names(path, file), is_it, "{path} of {file}");
    }
}
