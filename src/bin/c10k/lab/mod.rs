//! `c10k lab`: experiments that each show one fact about sockets or epoll on the kernel they run on.

mod calls;
mod datagrams;
mod kernel;
mod life;
mod limits;
mod queues;
mod record;
mod sockets;
mod waiting;

use std::io::Write;
use std::time::Instant;

use c10k::sys;
use clap::Args as ClapArgs;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, alarm};

use self::record::{Lab, Style, Verdict, wrapped};
use crate::Failure;
use crate::stdio::{note, stdout};

/// How long one lab may take when all are run. None takes a fifth of it.
const SECONDS_MAX: u32 = 60;

/// Shows a fact about sockets or epoll on this machine's own kernel
///
/// Runs an experiment: shows each system call, what the kernel reports, and whether what it claims
/// was seen. Loopback only; it leaves nothing behind.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  c10k lab                  list the labs\n  \
    c10k lab four-tuple       run one\n  c10k lab --all            run them all\n\n\
    A lab says what it claims, shows each system call and what the kernel reports, and whether the \
    claim was observed. Exit status: 0 if each was (or was skipped, for want of a privilege or of \
    a kernel feature), 1 if one was not.")]
pub(crate) struct Args {
    /// The lab to run; without a name, they are listed
    #[arg(conflicts_with_all = ["all", "list"])]
    name: Option<String>,
    /// Run every lab, each in a process of its own
    #[arg(long, conflicts_with = "list")]
    all: bool,
    /// List the labs and their claims
    #[arg(long)]
    list: bool,
    /// Print JSON: one object for each lab, on a line
    #[arg(long)]
    json: bool,
}

/// A lab: a fact, and how to show it.
pub(crate) struct About {
    pub(crate) name: &'static str,
    /// In one sentence.
    pub(crate) claim: &'static str,
    pub(crate) run: fn(&mut Lab) -> Result<(), Trouble>,
}

/// Labs that belong together.
struct Group {
    title: &'static str,
    labs: &'static [&'static About],
}

const GROUPS: &[Group] = &[
    Group { title: "Sockets and the four-tuple", labs: sockets::LABS },
    Group { title: "The listen queues", labs: queues::LABS },
    Group { title: "The life and death of a connection", labs: life::LABS },
    Group { title: "Waiting: blocking to epoll", labs: waiting::LABS },
    Group { title: "Datagrams", labs: datagrams::LABS },
    Group { title: "Limits", labs: limits::LABS },
];

/// Why a lab came to no verdict of its own.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It needs what is not there: a privilege, or a feature of the kernel.
    Skipped(String),
    /// A call that has to succeed did not.
    Failed(String),
}

/// What a call lacks is missing, and says nothing about the claim; any other error is a failure.
impl<E: std::error::Error + 'static> From<E> for Trouble {
    fn from(error: E) -> Trouble {
        match kernel::lacks(&error) {
            Some(what) => Trouble::Skipped(format!("needs {what}")),
            None => Trouble::Failed(error.to_string()),
        }
    }
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    // What a lab prints and where it comes to a limit are then the same whoever starts it.
    sys::close_inherited();
    match &args.name {
        Some(name) => run_one(name, &args),
        None if args.all => run_all(&args),
        None => list(&args),
    }
}

fn every_lab() -> impl Iterator<Item = &'static About> {
    GROUPS.iter().flat_map(|group| group.labs.iter().copied())
}

fn list(args: &Args) -> Result<(), Failure> {
    let mut out = stdout();
    for group in GROUPS {
        if !args.json {
            writeln!(out, "{}", group.title)?;
        }
        for about in group.labs {
            let About { name, claim, .. } = about;
            if args.json {
                let group = group.title;
                let line = serde_json::json!({ "lab": name, "group": group, "claim": claim });
                writeln!(out, "{line}")?;
            } else {
                writeln!(out, "  {name}\n{}", wrapped(claim, "      "))?;
            }
        }
    }
    Ok(())
}

fn run_one(name: &str, args: &Args) -> Result<(), Failure> {
    let Some(about) = every_lab().find(|about| about.name == name) else {
        let names = every_lab().map(|about| about.name).collect::<Vec<_>>().join(", ");
        return Err(Failure::Cannot(format!("there is no lab {name:?}; there are {names}")));
    };
    match observe(about, Style::chosen(args.json))? {
        Verdict::NotObserved => Err(Failure::Found(format!("{name}: not observed"))),
        Verdict::Observed | Verdict::Skipped => Ok(()),
    }
}

fn observe(about: &'static About, style: Style) -> Result<Verdict, Failure> {
    let mut lab = Lab::new(about.name, about.claim, style)?;
    let result = kernel::prepare().and_then(|()| (about.run)(&mut lab));
    Ok(lab.end(result)?)
}

/// Each in a process of its own: what a lab changes (limits, namespaces, signals) ends with it, and
/// one that hangs does not hold up the others.
fn run_all(args: &Args) -> Result<(), Failure> {
    let start = Instant::now();
    let (mut observed, mut skipped, mut failed) = (0, 0, Vec::new());
    for about in every_lab() {
        match in_a_child(about, Style::chosen(args.json))? {
            Some(Verdict::Observed) => observed += 1,
            Some(Verdict::Skipped) => skipped += 1,
            Some(Verdict::NotObserved) => failed.push(about.name),
            None => {
                note(format_args!("c10k: {} did not end by itself", about.name));
                failed.push(about.name);
            }
        }
        if !args.json {
            writeln!(stdout())?;
        }
    }
    if !args.json {
        writeln!(
            stdout(),
            "{} labs in {:.1} s: {observed} observed, {} not observed, {skipped} skipped",
            every_lab().count(),
            start.elapsed().as_secs_f64(),
            failed.len(),
        )?;
    }
    match failed[..] {
        [] => Ok(()),
        _ => Err(Failure::Found(format!("not observed: {}", failed.join(", ")))),
    }
}

/// `None` if it was killed, or took too long, which kills it (`alarm(2)`).
fn in_a_child(about: &'static About, style: Style) -> Result<Option<Verdict>, Failure> {
    let parent = std::process::id();
    let pid = sys::fork(|| {
        alarm::set(SECONDS_MAX);
        let result = sys::end_with_parent(parent, Signal::SIGKILL as i32);
        match result.map_err(Failure::from).and_then(|()| observe(about, style)) {
            Ok(verdict) => verdict as i32,
            Err(_) => -1,
        }
    })?;
    match waitpid(Pid::from_raw(pid as i32), None)? {
        WaitStatus::Exited(_, status) => Ok(Verdict::of(status)),
        _ => Ok(None),
    }
}
