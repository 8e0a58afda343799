//! What is told of a load: how it goes, a summary or JSON at the end, and a log of latencies.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::live::Live;
use super::plan::Plan;
use super::progress::{Progress, Stage};
use super::report::Report;
use super::series;
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
    series: Option<Vec<series::Row>>,
}

/// The file of a log, open. If nothing is written to it, it is left as it was found.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    /// It was not there before, and nothing was written to it.
    new: bool,
}

impl Log {
    fn open(path: PathBuf) -> io::Result<Log> {
        let new = !path.exists();
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        Ok(Log { path, file, new })
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.new = false;
        // A pipe has no length.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        let mut log = BufWriter::new(&self.file);
        write(&mut log)?;
        log.flush()
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
    /// From when all is connected to when measuring begins.
    warmup: Duration,
    /// When measuring began, since 1970, to a few milliseconds.
    began: Duration,
}

impl Output {
    /// Opens them: what cannot be written is to be known before the load, not after it.
    pub(super) fn open(mut args: Args, plan: &Plan) -> Result<Output, Failure> {
        let open = |path: PathBuf| Log::open(path.clone()).map_err(|error| cannot(&path, &error));
        let hdr = args.hdr.take().map(open);
        let warmup = if plan.requests_each.is_some() { Duration::ZERO } else { plan.warmup };
        let (hdr, live) = (hdr.transpose()?, Live::new(plan.connections, args.progress));
        Ok(Output { args, hdr, live, warmup, began: Duration::ZERO })
    }

    /// Is told how far the load has got, and when all is connected, just before it sends.
    pub(super) fn see(&mut self, progress: &Progress) {
        if progress.stage == Stage::Connected {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.began = now + self.warmup;
        }
        self.live.see(progress);
    }

    /// Leaves the terminal to somebody else for a while.
    pub(super) fn hide(&self) {
        self.live.hide();
    }

    pub(super) fn print(self, report: &Report) -> Result<(), Failure> {
        drop(self.live);
        let Report { series, measured_s, .. } = report;
        let mut stdout = stdout();
        if self.args.json {
            let rows = self.args.series.then(|| series::rows(series, *measured_s));
            writeln!(stdout, "{}", serde_json::to_string(&Json { report, series: rows })?)?;
        } else {
            write!(stdout, "{report}\n{}", bars(&series::histogram(series)))?;
        }
        if let Some(mut log) = self.hdr {
            let intervals = series::intervals(series, *measured_s, self.began);
            log.write(|file| hdr::write(&intervals, file))
                .map_err(|error| cannot(&log.path, &error))?;
        }
        Ok(())
    }
}
