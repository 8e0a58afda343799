//! How many system calls a server makes for each request, as `strace` counts them.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use c10k::sys::die_with_parent;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A `strace` that counts the calls of a process, of its threads and of its children.
pub(super) struct Counting {
    child: Child,
    summary: PathBuf,
}

impl Counting {
    /// Attaches to a process; `None` where strace is not installed, or may not.
    pub(super) fn start(pid: u32, family: &[u32]) -> Option<Counting> {
        let summary = std::env::temp_dir().join(format!("c10k-{}-calls", std::process::id()));
        let mut command = Command::new("strace");
        die_with_parent(&mut command);
        command.args(["-f", "-c", "-o"]).arg(&summary);
        for pid in [pid].iter().chain(family) {
            command.args(["-p", &pid.to_string()]);
        }
        // A SIGINT of the terminal would end the count early (see `child`).
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let mut said = BufReader::new(child.stderr.take().expect("piped")).lines();
        // A line for each process that it has attached to; then it counts.
        for _ in 0..=family.len() {
            match said.next() {
                Some(Ok(line)) if line.contains("attached") => {}
                _ => {
                    crate::child::end(&mut child);
                    return None;
                }
            }
        }
        // Whatever else it says must not hold it up.
        std::thread::spawn(move || said.for_each(drop));
        Some(Counting { child, summary })
    }

    /// Lets go of the process, and returns how many calls it has made meanwhile.
    pub(super) fn stop(mut self) -> io::Result<Option<u64>> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT)?;
        self.child.wait()?;
        Ok(total(&fs::read_to_string(&self.summary)?))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        crate::child::end(&mut self.child);
        let _ = fs::remove_file(&self.summary);
    }
}

/// The calls in all, in the last line of the table: "100.00    0.004713      2    2014      3 total".
fn total(summary: &str) -> Option<u64> {
    let line = summary.lines().rev().find(|line| line.trim_end().ends_with("total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_with_and_without_errors() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     \x2067.27    0.070513         140       501         1 wait4\n\
                     ------ ----------- ----------- --------- --------- ----------------\n";
        let with = "100.00    0.154743           8     18530        12 total\n";
        let without = "100.00    0.154743           8     18530           total\n";
        assert_eq!(total(&format!("{table}{with}")), Some(18_530));
        assert_eq!(total(&format!("{table}{without}")), Some(18_530));
        assert_eq!(total(table), None);
    }
}
