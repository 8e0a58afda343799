//! Wrong command lines, made from the options that the help of each verb lists: each with nothing,
//! junk, a negative number, none, the largest and a larger one, more than a century, letters beyond
//! ASCII, bytes that are not UTF-8, and twice. None may panic, hang or start anything: exit status 2, and one line that
//! names the option or its value.

#![cfg(feature = "cli")]

mod common;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::thread;

use common::Server;
use common::server::c10k;

/// Each verb with arguments with which it cannot start, whatever its options say: a line that is
/// accepted although it is wrong ends with another error, and serves and loads nothing.
const VERBS: &[(&str, &[&str])] = &[
    ("serve", &["--listen", "unix:/nonexistent/socket"]),
    ("client", &["unix:/nonexistent/socket", "hello"]),
    ("load", &["unix:/nonexistent/socket"]),
    ("race", &["--report", "/nonexistent/race.html"]),
    ("merge", &["/nonexistent/a.hlog"]),
    ("lab", &["no-such-lab"]),
    ("million", &[]),
    ("completions", &["no-such-shell"]),
    ("man", &["no-such-verb"]),
];

/// What an option may be given that is wrong for most.
const VALUES: &[(Wrong, &[u8])] = &[
    (Wrong::Empty, b""),
    (Wrong::Junk, b"!junk"),
    (Wrong::Negative, b"-1"),
    (Wrong::Huge, b"99999999999999999999999999"),
    (Wrong::Century, b"300000000000y"),
    (Wrong::Unicode, "\u{2603}".as_bytes()),
    (Wrong::NotUtf8, b"\xff\xfe"),
    (Wrong::Zero, b"0"),
    (Wrong::Most, b"18446744073709551615"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Empty,
    Junk,
    Negative,
    Huge,
    Century,
    Unicode,
    NotUtf8,
    Zero,
    Most,
}

/// Options whose values are text or names of files: there is next to nothing that they cannot be.
const FREE: &[&str] =
    &["--prefix", "--message", "--hdr", "--report", "--svg", "--from", "--baseline"];

/// Whether this may be no mistake.
fn is_legitimate(option: &HelpedOption, wrong: Wrong) -> bool {
    let value = option.value.as_deref().unwrap_or_default();
    let is_count = ["N", "M", "R", "K"].contains(&value);
    FREE.contains(&option.name.as_str()) && (wrong != Wrong::Empty || option.name == "--prefix")
        || wrong == Wrong::Zero && (is_count || ["BYTE", "DUR", "DUR|off"].contains(&value))
        || wrong == Wrong::Most && is_count
}

/// An option as the help of its verb tells it.
#[derive(Debug)]
struct HelpedOption {
    name: String,
    /// As in `N` or `DUR`, if it has a value.
    value: Option<String>,
    text: String,
}

impl HelpedOption {
    /// The lines of the help: those of options are indented less than what they do.
    fn all(help: &str) -> Vec<HelpedOption> {
        let mut options: Vec<HelpedOption> = Vec::new();
        for line in help.lines() {
            let text = line.trim_start();
            let indent = line.len() - text.len();
            let long = text.strip_prefix("-").and_then(|_| text.find("--")).filter(|_| indent <= 6);
            if let Some(at) = long.filter(|&at| at <= 4) {
                let (option, about) = text[at..].split_once("  ").unwrap_or((&text[at..], ""));
                let (name, value) = match option.split_once(' ') {
                    Some((name, value)) => (name, Some(value.trim_matches(['<', '>']).to_owned())),
                    None => (option, None),
                };
                let name = name.to_owned();
                options.push(HelpedOption { name, value, text: about.to_owned() });
            } else if let Some(option) = options.last_mut().filter(|_| indent > 6) {
                option.text.push(' ');
                option.text.push_str(text);
            }
        }
        options.retain(|option| !["--help", "--version"].contains(&option.name.as_str()));
        options
    }

    /// A value that is right.
    fn right(&self) -> &str {
        let possible = self.text.split("ossible values: ").nth(1);
        if let Some(first) = possible.and_then(|list| list.split([',', ']', ':']).next()) {
            return first.trim_start_matches("- ");
        }
        match self.value.as_deref().expect("it has one") {
            "N" | "M" | "R" | "K" | "PID" => "1",
            "DUR" | "DUR|off" => "1s",
            "SIZE" => "1KiB",
            "BYTE" => "x",
            "TEXT" | "TEMPLATE" => "a",
            "ADDR" => "127.0.0.1:0",
            "ADDR[,ADDR]..." => "127.0.0.1",
            "CONDITION" => "p99<1s",
            "FILE" => "/nonexistent/file",
            other => panic!("what is a {other}?"),
        }
    }

    /// Whether its help says that it may be given several times.
    fn repeats(&self) -> bool {
        ["repeated", "many times"].iter().any(|word| self.text.contains(word))
            || self.value.as_deref().is_some_and(|value| value.ends_with("..."))
    }
}

/// The output of a program that ends. Files that it makes in spite of all are made elsewhere.
#[track_caller]
fn run(args: &[OsString]) -> Output {
    let directory: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("command-line");
    fs::create_dir_all(&directory).unwrap();
    let mut command = c10k(&[]);
    command.args(args).current_dir(directory).stdin(Stdio::null());
    let mut child = command.spawn().expect("the program");
    let ended = common::comes_true(|| child.try_wait().unwrap().is_some());
    let _ = child.kill();
    assert!(ended, "it runs: {args:?}");
    child.wait_with_output().unwrap()
}

/// Exit status 2, one line, and nothing else. Returns the line.
#[track_caller]
fn refusal(args: &[OsString]) -> String {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert_eq!((stderr.lines().count(), output.stdout.len()), (1, 0), "{args:?}: {stderr}");
    assert!(stderr.starts_with("c10k: "), "{args:?}: {stderr}");
    stderr
}

/// All that can be wrong with the options of one verb. Returns how many lines were tried.
fn check(verb: &str, base: &[&str]) -> usize {
    let help = String::from_utf8(c10k(&["help", verb]).output().unwrap().stdout).unwrap();
    let start: Vec<_> = [&[verb], base].concat().into_iter().map(OsString::from).collect();
    let mut tried = 0;
    let mut refused = |more: &[&[u8]], names: &[&str]| {
        tried += 1;
        let more = more.iter().map(|arg| OsStr::from_bytes(arg).to_owned());
        let args: Vec<_> = start.iter().cloned().chain(more).collect();
        let why = refusal(&args);
        assert!(names.iter().any(|name| why.contains(name)), "{args:?}: {why}");
    };
    for option in HelpedOption::all(&help) {
        let name = option.name.as_str();
        let with = |value: &[u8]| [name.as_bytes(), b"=", value].concat();
        if option.value.is_none() {
            refused(&[&with(b"junk")], &[name]);
            refused(&[name.as_bytes(), name.as_bytes()], &["cannot be used multiple times"]);
            continue;
        }
        refused(&[name.as_bytes()], &["a value is required"]);
        for &(wrong, value) in VALUES {
            // What names the value: an error of its own, without the option.
            let quoted = format!("'{}'", String::from_utf8_lossy(value));
            let escaped = format!("{:?}", OsStr::from_bytes(value)).replace('"', "");
            match is_legitimate(&option, wrong) {
                // It would run: nothing else is wrong there.
                true if base.is_empty() => {}
                // It ends for another reason, whatever that is.
                true => refused(&[&with(value)], &[""]),
                false if value.is_empty() => refused(&[&with(value)], &[name, &quoted]),
                false => refused(&[&with(value)], &[name, &quoted, &escaped]),
            }
        }
        let twice = [with(option.right().as_bytes()), with(option.right().as_bytes())];
        let twice: Vec<&[u8]> = twice.iter().map(Vec::as_slice).collect();
        match option.repeats() {
            true => refused(&twice, &["nonexistent"]),
            false => refused(&twice, &["cannot be used multiple times"]),
        }
    }
    tried
}

#[test]
fn a_wrong_command_line_is_refused_in_one_line() {
    let tried: usize = thread::scope(|scope| {
        let verb = |&(verb, base): &(&'static str, &'static [&'static str])| {
            let name = thread::Builder::new().name(format!("verb {verb}"));
            name.spawn_scoped(scope, move || check(verb, base)).unwrap()
        };
        let verbs: Vec<_> = VERBS.iter().map(verb).collect();
        verbs.into_iter().map(|verb| verb.join().expect("see above")).sum()
    });
    assert!(tried >= 200, "the help lists only so many options: {tried}");
}

#[test]
fn what_is_no_option_is_refused_in_one_line() {
    for (args, part) in [
        (&["no-such-verb"][..], "no-such-verb"),
        (&["\u{2603}"], "\u{2603}"),
        (&["--no-such-option"], "--no-such-option"),
        (&["serve", "extra"], "extra"),
        (&["serve", "--no-such-option"], "--no-such-option"),
        (&["serve", "--liste", "127.0.0.1:0"], "--listen"),
        (&["client"], "<ADDR>"),
        (&["load"], "<ADDR>"),
        (&["merge"], "<FILE>"),
        (&["lab", "no-such-lab"], "no-such-lab"),
        (&["completions"], "<SHELL>"),
        (&["completions", "no-such-shell"], "no-such-shell"),
        (&["man", "no-such-verb"], "no-such-verb"),
        (&["serve", "--prefix", "-> "], "--OPTION=->"),
        (&["million", "extra"], "extra"),
    ] {
        let args: Vec<_> = args.iter().map(OsString::from).collect();
        let why = refusal(&args);
        assert!(why.contains(part), "{args:?}: {why}");
    }
    let why = refusal(&[OsStr::from_bytes(b"\xff").to_owned()]);
    assert!(why.contains("\u{fffd}") || why.contains("\\xFF"), "{why}");
    let why = refusal(&["load".into(), "a:1".into(), OsStr::from_bytes(b"--\xff").to_owned()]);
    assert!(why.contains("\u{fffd}") || why.contains("\\xFF"), "{why}");
}

#[test]
fn an_option_that_would_do_nothing_is_refused() {
    const RACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/race.json");
    let serve = ["serve", "--listen", "unix:/nonexistent/socket"];
    let from = ["race", "--from", RACE];
    let missing = ["--report", "/nonexistent/race.html"];
    for (args, part) in [
        ([&serve[..], &["--model", "poll", "--trigger", "edge"]].concat(), "--trigger"),
        ([&serve[..], &["--stack-size", "1MiB"]].concat(), "--stack-size is for --model threads"),
        ([&serve[..], &["--protocol", "sum", "--delimiter", "x"]].concat(), "--delimiter"),
        ([&serve[..], &["--framing", "chunk", "--delimiter", "x"]].concat(), "--delimiter"),
        ([&serve[..], &["--protocol", "ok", "--prefix", "x"]].concat(), "--prefix"),
        ([&serve[..], &["--model", "threads", "--workers", "2"]].concat(), "--workers"),
        ([&from[..], &["--connections", "10"]].concat(), "--connections"),
        ([&from[..], &["--quick"]].concat(), "--quick"),
        ([&from[..], &["--duration", "1s"]].concat(), "--duration"),
        ([&["race", "--quick", "--rate", "10"], &missing[..]].concat(), "--rate"),
        ([&["race", "--quick", "--full"], &missing[..]].concat(), "--full"),
        (vec!["load", "unix:/nonexistent/socket", "--series"], "--json"),
        (vec!["load", "unix:/nonexistent/socket", "--pipeline", "2M"], "--pipeline is 1,000,000"),
        (vec!["load", "unix:/nonexistent/socket", "--rate", "11M"], "10M requests a second"),
        (vec!["lab", "four-tuple", "--list"], "--list"),
    ] {
        let args: Vec<_> = args.iter().map(OsString::from).collect();
        let why = refusal(&args);
        assert!(why.contains(part), "{args:?}: {why}");
    }
}

#[test]
fn text_on_the_command_line_need_not_be_utf8() {
    let bytes = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    let mut serve = c10k(&["serve", "--listen", "127.0.0.1:0"]);
    serve.arg(bytes(b"--prefix=\xff\xfe"));
    let server = Server::spawn(serve, 1).unwrap();
    let addr = server.addr().to_string();
    let load = |prefix: &[u8]| {
        let mut load = c10k(&["load", &addr, "--connections", "2", "--requests-each", "3"]);
        load.arg("--prefix").arg(bytes(prefix)).arg("--message").arg(bytes(b"\x80{seq}"));
        load.output().unwrap()
    };
    let output = load(b"\xff\xfe");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    // It is compared: other bytes are another prefix.
    assert_eq!(load(b"\xff\xff").status.code(), Some(1));
    server.stop();
}
