//! What is told of a load: how it goes, a summary or JSON at the end, and a log of latencies.

use std::fs::{self, File, OpenOptions};
use std::io::{self, LineWriter, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use serde::Serialize;

use super::live::Live;
use super::measured::{self, Second};
use super::plan::Plan;
use super::progress::Progress;
use super::report::Report;
use super::series::{self, Row};
use crate::Failure;
use crate::bars::bars;
use crate::hdr;
use crate::stdio::stdout;

#[derive(Debug, clap::Args)]
// As a group it would have the same name as those that it is flattened into.
#[group(skip)]
pub(super) struct Args {
    /// Write the latencies of each second to this file, as an HdrHistogram log of nanoseconds; see
    /// c10k merge
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Have a series in the JSON: an object for each second
    #[arg(long, requires = "json")]
    series: bool,
    /// Tell once a second on standard error how it goes; on a terminal that is seen anyway
    #[arg(long)]
    progress: bool,
}

/// The result in JSON. Its fields are told in the README.
#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<Vec<Row>>,
}

/// The file of a log, open. If nothing is written to it, it is left as it was found.
///
/// A second is written when it is settled, so that a load which is killed has left those before. It
/// is compressed for that, which takes longer than the loop may take to send what is due: so a thread
/// does it. There is none before the first second, since then workers could not be forked.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    /// It was not there before, and nothing was written to it.
    new: bool,
    writer: Option<Writer>,
}

#[derive(Debug)]
struct Writer {
    seconds: Sender<Second>,
    thread: JoinHandle<io::Result<()>>,
}

impl Log {
    fn open(path: PathBuf) -> io::Result<Log> {
        let new = !path.exists();
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        Ok(Log { path, file, new, writer: None })
    }

    fn writer(&mut self) -> io::Result<Writer> {
        if let Some(writer) = self.writer.take() {
            return Ok(writer);
        }
        self.new = false;
        // A pipe has no length.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        let mut file = LineWriter::new(self.file.try_clone()?);
        let (seconds, settled) = channel::<Second>();
        let write = move || {
            hdr::write(settled.iter().map(|second| series::interval(&second)), &mut file)?;
            file.flush()
        };
        Ok(Writer { seconds, thread: thread::Builder::new().spawn(write)? })
    }

    fn add(&mut self, second: Second) -> io::Result<()> {
        let writer = self.writer()?;
        // If it has ended, it says why in the end.
        let _ = writer.seconds.send(second);
        self.writer = Some(writer);
        Ok(())
    }

    /// Writes what is left; if there was no second, that it is a log.
    fn end(&mut self) -> io::Result<()> {
        let Writer { seconds, thread } = self.writer()?;
        drop(seconds);
        thread.join().unwrap_or_else(|_| Err(io::Error::other("its writer panicked")))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.new {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    Failure::Cannot(format!("{}: {error}", path.display()))
}

/// The places, open.
#[derive(Debug)]
pub(super) struct Output {
    args: Args,
    hdr: Option<Log>,
    live: Live,
    /// If they are asked for.
    series: Vec<Row>,
}

impl Output {
    /// Opens them: what cannot be written is to be known before the load, not after it. The plan is
    /// then one that tells each second, if that is needed.
    pub(super) fn open(mut args: Args, plan: &mut Plan) -> Result<Output, Failure> {
        let open = |path: PathBuf| Log::open(path.clone()).map_err(|error| cannot(&path, &error));
        let hdr = args.hdr.take().map(open).transpose()?;
        let live = Live::new(plan.connections, args.progress);
        plan.each_second = hdr.is_some() || args.series;
        Ok(Output { args, hdr, live, series: Vec::new() })
    }

    /// Is told how far the load has got.
    pub(super) fn see(&mut self, mut progress: Progress) -> Result<(), Failure> {
        for second in mem::take(&mut progress.seconds) {
            if self.args.series {
                self.series.push(Row::of(&second));
            }
            if let Some(log) = &mut self.hdr {
                log.add(second).map_err(|error| cannot(&log.path, &error))?;
            }
        }
        self.live.see(&progress);
        Ok(())
    }

    /// Leaves the terminal to somebody else for a while.
    pub(super) fn hide(&self) {
        self.live.hide();
    }

    pub(super) fn print(self, report: &Report) -> Result<(), Failure> {
        drop(self.live);
        let mut stdout = stdout();
        if self.args.json {
            let series = self.args.series.then_some(self.series);
            writeln!(stdout, "{}", serde_json::to_string(&Json { report, series })?)?;
        } else {
            write!(stdout, "{report}\n{}", bars(&measured::sum(&report.latency)))?;
        }
        if let Some(mut log) = self.hdr {
            log.end().map_err(|error| cannot(&log.path, &error))?;
        }
        Ok(())
    }
}
