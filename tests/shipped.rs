//! What a package ships beside the program: completions for shells, and manual pages.

#![cfg(feature = "cli")]

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::server::c10k;

/// What the program prints with these arguments, which must be right.
#[track_caller]
fn printed(args: &[&str]) -> String {
    let output = c10k(args).output().expect("the program");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{args:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The verbs, as the help lists them.
fn verbs() -> Vec<String> {
    let help = printed(&["--help"]);
    let list = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    let verbs = list.expect("a list").lines().filter(|line| line.starts_with("  "));
    let verbs: Vec<_> = verbs.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.contains(&"serve") && verbs.contains(&"man"), "{verbs:?}");
    verbs.into_iter().filter(|verb| *verb != "help").map(str::to_owned).collect()
}

#[test]
fn each_verb_has_a_manual_page_with_its_options() {
    let program = printed(&["man"]);
    assert!(program.contains(".TH c10k 1 "), "{program}");
    for verb in verbs() {
        assert!(program.contains(&format!("c10k\\-{verb}(1)")), "{verb}");
        let page = printed(&["man", &verb]);
        let title = format!(".TH c10k-{verb} 1  \"c10k {}\"", env!("CARGO_PKG_VERSION"));
        assert!(page.contains(&title), "{verb}: {page}");
        assert!(page.contains("Examples:"), "{verb}: {page}");
        // What the help lists is all there, with its hyphens as roff wants them.
        let help = printed(&["help", &verb]);
        let options = help.lines().filter_map(|line| line.trim_start().strip_prefix("--"));
        for option in options.filter_map(|line| line.split([' ', ',']).next()) {
            let option = format!("\\-\\-{}", option.replace('-', "\\-"));
            assert!(page.contains(&option), "{verb}: {option}");
        }
    }
    let unknown = c10k(&["man", "nothing"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&unknown.stderr);
    assert_eq!((unknown.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(stderr.contains("there is no verb \"nothing\"; there are serve, "), "{stderr}");
}

#[test]
fn each_shell_has_completions_with_every_verb() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["completions", shell]);
        for verb in verbs() {
            assert!(script.contains(&verb), "{shell}: {verb}");
        }
        assert!(script.contains("idle-timeout"), "{shell}");
    }
}

/// The script in a shell of its own, which completes `c10k WORDS` and prints what it would offer.
#[test]
fn bash_completes_verbs_options_and_values() {
    if Command::new("bash").arg("--version").output().is_err() {
        common::skip("there is no bash");
        return;
    }
    let script = printed(&["completions", "bash"]);
    for (words, offered) in [
        (&["lo"][..], "load"),
        (&["serve", "--idle"], "--idle-timeout"),
        (&["serve", "--model", "ep"], "epoll"),
        (&["completions", "z"], "zsh"),
    ] {
        let complete = format!(
            "COMP_WORDS=(c10k {}); COMP_CWORD={}; _c10k c10k \"${{COMP_WORDS[-1]}}\" \
             \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[@]}}\"",
            words.join(" "),
            words.len()
        );
        let mut bash = Command::new("bash");
        bash.args(["--noprofile", "--norc"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut bash = bash.spawn().unwrap();
        let mut stdin = bash.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).unwrap();
        stdin.write_all(complete.as_bytes()).unwrap();
        drop(stdin);
        let output = bash.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), offered, "{words:?}");
    }
}
