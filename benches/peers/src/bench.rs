//! What every measurement needs: who takes part, and how their server and its load are started.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::contenders::{self, Contender};
use crate::processes::{Load, Server, build_c10k};
use crate::result::{LeftOut, Method};

pub(crate) const OURS: &str = "c10k";

/// What `c10k load` sends if it is not told otherwise.
const MESSAGE_BYTES: u64 = 64;

/// Many connections come from all of these: one address has ports for 28,000 to each server, and
/// the search for a free one takes the longer the fewer there are.
const SOURCES: &str = "127.1.0.0/24";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these, beside ours
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    contenders: Vec<String>,
    /// How long a trial is [default: 1s; with --quick 300ms]
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// How long the load runs before that
    #[arg(long, value_name = "DUR", default_value = "200ms", value_parser = humantime::parse_duration)]
    warmup: Duration,
    /// Fewer and shorter: for a first look
    #[arg(long)]
    pub(crate) quick: bool,
    /// The CPU of the server
    #[arg(long, value_name = "N", default_value = "0")]
    server_cpu: usize,
    /// The CPU of the load
    #[arg(long, value_name = "N", default_value = "1")]
    load_cpu: usize,
    /// This c10k, rather than the one that cargo builds of the repository
    #[arg(long, value_name = "PATH")]
    c10k: Option<PathBuf>,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

pub(crate) struct Bench {
    options: Options,
    c10k: PathBuf,
    /// Ours first.
    pub(crate) names: Vec<&'static str>,
    pub(crate) left_out: Vec<LeftOut>,
    duration: Duration,
}

impl Bench {
    pub(crate) fn new(options: Options) -> Result<Bench, Box<dyn Error>> {
        let (names, left_out) = choose(&options.contenders)?;
        for LeftOut { name, why } in &left_out {
            eprintln!("{name} is left out: {why}");
        }
        let usual = if options.quick { Duration::from_millis(300) } else { Duration::from_secs(1) };
        let duration = options.duration.unwrap_or(usual);
        let c10k = match &options.c10k {
            Some(path) => path.clone(),
            None => build_c10k()?,
        };
        Ok(Bench { options, c10k, names, left_out, duration })
    }

    pub(crate) fn method(&self, rounds: usize) -> Method {
        Method {
            rounds,
            duration_s: self.duration.as_secs_f64(),
            warmup_s: self.options.warmup.as_secs_f64(),
            message_bytes: MESSAGE_BYTES,
            server_cpu: self.options.server_cpu,
            load_cpu: self.options.load_cpu,
        }
    }

    pub(crate) fn server(&self, name: &str) -> io::Result<Server> {
        let cpu = self.options.server_cpu.to_string();
        let mut command;
        if name == OURS {
            command = Command::new(&self.c10k);
            command.args(["serve", "--listen", "127.0.0.1:0", "--cpu", &cpu]);
            // The deadline is kept, and is one that does not come.
            command.args(["--idle-timeout", "10m"]).env("RUST_LOG", "error");
        } else {
            command = Command::new(std::env::current_exe()?);
            command.args(["serve", name, "--cpu", &cpu]);
        }
        Server::start(&mut command)
    }

    /// Trials with so many connections to the server.
    pub(crate) fn load(
        &self,
        server: &Server,
        connections: u64,
        pipeline: u64,
    ) -> io::Result<Load> {
        let mut command = Command::new(&self.c10k);
        command
            .args(["load", &server.addr, "--trials", "--probe", "--spin"])
            .args(["--connections", &connections.to_string()])
            .args(["--pipeline", &pipeline.to_string()])
            .args(["--warmup", &format!("{}ms", self.options.warmup.as_millis())])
            .args(["--duration", &format!("{}ms", self.duration.as_millis())])
            .args(["--server-pid", &server.pid().to_string()])
            .args(["--cpu", &self.options.load_cpu.to_string()]);
        Load::start(&mut command, connections)
    }

    /// Connections that are answered once and then idle, shared among several servers. The load is
    /// as many processes.
    pub(crate) fn idle_load(&self, servers: &[Server], connections: u64) -> io::Result<Load> {
        let mut command = Command::new(&self.c10k);
        command
            .arg("load")
            .args(servers.iter().map(|server| &server.addr))
            .args(["--wait", "--probe", "--timeout", "5m", "--source", SOURCES])
            .args(["--connections", &connections.to_string()])
            .args(["--workers", &servers.len().to_string()])
            .args(["--cpu", &self.options.load_cpu.to_string()]);
        Load::start(&mut command, connections)
    }
}

/// Who takes part, ours first, and who cannot.
fn choose(wanted: &[String]) -> Result<(Vec<&'static str>, Vec<LeftOut>), String> {
    let contenders = match wanted {
        [] => contenders::ALL.to_vec(),
        wanted => {
            let found = wanted.iter().map(|name| {
                Contender::named(name).ok_or(format!("no contender {name}: see --list"))
            });
            found.collect::<Result<_, _>>()?
        }
    };
    let mut names = vec![OURS];
    let mut left_out = Vec::new();
    for contender in contenders {
        match contender.missing() {
            None => names.push(contender.name),
            Some(why) => {
                left_out.push(LeftOut { name: contender.name.to_owned(), why: why.to_owned() });
            }
        }
    }
    Ok((names, left_out))
}

/// The figures that were wanted, or else the usual ones.
pub(crate) fn or(wanted: &[u64], usual: &[u64]) -> Vec<u64> {
    if wanted.is_empty() { usual.to_vec() } else { wanted.to_vec() }
}
