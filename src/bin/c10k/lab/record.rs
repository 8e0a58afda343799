//! What a lab does and finds, told as it goes or collected as JSON.

use std::env;
use std::fmt::{Debug, Display};
use std::io::{self, IsTerminal, Write};

use nix::errno::Errno;
use serde::Serialize;

use super::Trouble;
use super::calls::Names;
use crate::stdio::stdout;

/// How wide the text is.
const COLUMNS: usize = 80;

/// Where the result of a call begins, if the call is short enough.
const RESULT_COLUMN: usize = 52;

/// A lab under way.
pub(crate) struct Lab {
    style: Style,
    /// What its descriptors are called.
    pub(super) names: Names,
    report: Report,
}

/// What a lab has done and found; see the README for the meaning of each field.
#[derive(Debug, Serialize)]
struct Report {
    lab: &'static str,
    claim: &'static str,
    verdict: Verdict,
    /// Why it was skipped, or could not go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    /// What comes next, in words.
    Note(String),
    Call {
        call: String,
        result: String,
    },
    /// What the kernel reports.
    Kernel {
        source: String,
        lines: Vec<String>,
    },
    /// What was seen, beside what the claim says.
    Fact {
        fact: String,
        seen: String,
        expected: String,
        holds: bool,
    },
}

/// What came of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Observed = 0,
    NotObserved = 1,
    Skipped = 2,
}

impl Verdict {
    /// The verdict of this number.
    pub(super) fn of(number: i32) -> Option<Verdict> {
        [Verdict::Observed, Verdict::NotObserved, Verdict::Skipped]
            .into_iter()
            .find(|verdict| *verdict as i32 == number)
    }
}

/// How it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Colour,
    Json,
}

impl Style {
    /// Colour is for terminals, unless `NO_COLOR` says otherwise (<https://no-color.org>).
    pub(super) fn chosen(json: bool) -> Style {
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match json {
            true => Style::Json,
            false if io::stdout().is_terminal() && !refused => Style::Colour,
            false => Style::Plain,
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Style::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
            Style::Plain | Style::Json => text.to_owned(),
        }
    }
}

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const RED: &str = "31";
const CYAN: &str = "36";
const YELLOW: &str = "33";

impl Lab {
    pub(super) fn new(name: &'static str, claim: &'static str, style: Style) -> io::Result<Lab> {
        let (verdict, why, steps) = (Verdict::NotObserved, None, Vec::new());
        let report = Report { lab: name, claim, verdict, why, steps };
        let lab = Lab { style, names: Names::default(), report };
        lab.say(&format!("{}\n{}", style.paint(BOLD, name), wrapped(claim, "  ")));
        Ok(lab)
    }

    /// Says in words what comes next.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        let wrapped = wrapped(&text, "  # ");
        let lines: Vec<_> = wrapped.lines().map(|line| self.style.paint(CYAN, line)).collect();
        self.say(&format!("\n{}", lines.join("\n")));
        self.report.steps.push(Step::Note(text));
    }

    /// Shows a system call and its result, in the manner of strace(1), and hands the result on.
    /// [`calls`](super::calls) has a method for each of the usual ones.
    pub(crate) fn call<T: Shown>(
        &mut self,
        call: impl Into<String>,
        result: nix::Result<T>,
    ) -> nix::Result<T> {
        let shown = match &result {
            Ok(value) => value.shown(&self.names),
            Err(errno) => format!("-1 {errno:?} ({})", errno.desc()),
        };
        self.called(call.into(), shown);
        result
    }

    /// The same for a call whose result is put into words.
    pub(crate) fn called(&mut self, call: String, result: String) {
        let painted = match result.starts_with("-1 ") {
            true => self.style.paint(YELLOW, &result),
            false => result.clone(),
        };
        // What does not fit behind the call goes below it.
        let wide = call.chars().count() + 2;
        let line = match wide.max(RESULT_COLUMN) + 3 + result.chars().count() > COLUMNS {
            true if wide + 3 + result.chars().count() <= COLUMNS => {
                format!("  {call} = {painted}")
            }
            true => format!("  {call}\n      = {painted}"),
            false => format!("  {call:<width$} = {painted}", width = RESULT_COLUMN - 2),
        };
        self.say(&line);
        self.report.steps.push(Step::Call { call, result });
    }

    /// Shows what the kernel reports, and where.
    pub(crate) fn kernel(&mut self, source: &str, lines: Vec<String>) {
        let mut text = format!("  {}", self.style.paint(DIM, &format!("kernel: {source}")));
        for line in &lines {
            text.push_str("\n    ");
            text.push_str(line);
        }
        self.say(&text);
        self.report.steps.push(Step::Kernel { source: source.to_owned(), lines });
    }

    /// A fact of the claim: what was seen is what was expected, or the claim was not observed.
    pub(crate) fn expect<T: PartialEq + Display>(&mut self, fact: &str, seen: T, expected: T) {
        let holds = seen == expected;
        self.fact(fact, seen.to_string(), expected.to_string(), holds);
    }

    /// The same for what has no one right value: `expected` says in words what holds.
    pub(crate) fn expect_that(
        &mut self,
        fact: &str,
        seen: impl Display,
        expected: &str,
        holds: bool,
    ) {
        self.fact(fact, seen.to_string(), expected.to_owned(), holds);
    }

    /// The same for a call that should fail with an error, or (`None`) succeed.
    pub(crate) fn expect_errno<T>(
        &mut self,
        fact: &str,
        result: &nix::Result<T>,
        expected: Option<Errno>,
    ) {
        let show = |errno: Option<Errno>| errno.map_or("success".to_owned(), |e| format!("{e:?}"));
        let seen = result.as_ref().err().copied();
        self.fact(fact, show(seen), show(expected), seen == expected);
    }

    fn fact(&mut self, fact: &str, seen: String, expected: String, holds: bool) {
        let mark = match holds {
            true => self.style.paint(GREEN, "yes"),
            false => self.style.paint(RED, "NO "),
        };
        let text = match (holds, seen == expected) {
            (true, true) => format!("{fact}: {seen}"),
            (true, false) => format!("{fact}: {seen} ({expected})"),
            (false, _) => format!("{fact}: {seen}, where {expected} was expected"),
        };
        self.say(&format!("  {mark} {}", wrapped(&text, "      ").trim_start()));
        self.report.steps.push(Step::Fact { fact: fact.to_owned(), seen, expected, holds });
    }

    /// The verdict: observed if there were facts, and all hold.
    pub(super) fn end(mut self, result: Result<(), Trouble>) -> io::Result<Verdict> {
        let facts = || {
            self.report.steps.iter().filter_map(|step| match step {
                Step::Fact { holds, .. } => Some(*holds),
                _ => None,
            })
        };
        let (all, held) = (facts().count(), facts().filter(|holds| *holds).count());
        let style = self.style;
        let (verdict, why, line) = match result {
            Ok(()) if held == all && all > 0 => {
                let line = format!("observed: {held} of {all} facts");
                (Verdict::Observed, None, style.paint(GREEN, &line))
            }
            Ok(()) => {
                let line = format!("not observed: {held} of {all} facts");
                (Verdict::NotObserved, None, style.paint(RED, &line))
            }
            Err(Trouble::Failed(why)) => {
                let line = style.paint(RED, &format!("not observed: {why}"));
                (Verdict::NotObserved, Some(why), line)
            }
            Err(Trouble::Skipped(why)) => {
                let line = style.paint(YELLOW, &format!("skipped: {why}"));
                (Verdict::Skipped, Some(why), line)
            }
        };
        self.say(&format!("\n{line}"));
        self.report.verdict = verdict;
        self.report.why = why;
        let mut out = stdout();
        if style == Style::Json {
            serde_json::to_writer(&mut out, &self.report)?;
            writeln!(out)?;
        }
        out.flush()?;
        Ok(verdict)
    }

    /// Nobody may be reading any more, which is no reason not to clean up.
    fn say(&self, text: &str) {
        if self.style != Style::Json {
            let _ = writeln!(stdout(), "{text}");
        }
    }
}

/// A result of a call, as strace would show it.
pub(crate) trait Shown {
    fn shown(&self, names: &Names) -> String;
}

impl Shown for () {
    fn shown(&self, _: &Names) -> String {
        "0".to_owned()
    }
}

impl Shown for usize {
    fn shown(&self, _: &Names) -> String {
        self.to_string()
    }
}

impl Shown for std::os::fd::OwnedFd {
    fn shown(&self, names: &Names) -> String {
        names.of(self)
    }
}

/// Bytes that were received: how many, as the call returns; the call itself shows what they are.
impl Shown for Vec<u8> {
    fn shown(&self, _: &Names) -> String {
        format!("{} {}", self.len(), quoted(self))
    }
}

/// Bytes as strace shows them: in quotes, and not more than fit.
pub(super) fn quoted(bytes: &[u8]) -> String {
    const MOST: usize = 16;
    let shown = bytes[..bytes.len().min(MOST)].escape_ascii();
    let more = if bytes.len() > MOST { "..." } else { "" };
    format!("\"{shown}\"{more}")
}

/// Text in lines that are not too long, each behind this.
pub(super) fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![indent.to_owned()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one");
        if line.len() > indent.len() && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines.push(format!("{indent}{word}"));
        } else {
            if line.len() > indent.len() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}
