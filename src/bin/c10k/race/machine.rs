//! The machine that a race ran on.

use std::fs;
use std::thread::available_parallelism;

use super::result::Machine;
use crate::proc;

impl Machine {
    /// This one, as far as it can be told.
    pub(crate) fn here() -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Machine {
            cpu: name
                .map_or("unknown", |name| name.trim_start_matches([' ', '\t', ':']))
                .to_owned(),
            cpus: available_parallelism().map_or(1, |cpus| cpus.get() as u32),
            memory_bytes: proc::total_memory(),
            kernel: kernel.trim().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_a_cpu_memory_and_a_kernel() {
        let machine = Machine::here();
        assert!(machine.cpus >= 1 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(machine.kernel.starts_with(|c: char| c.is_ascii_digit()), "{machine:?}");
        assert!(!machine.cpu.is_empty() && !machine.cpu.starts_with(':'), "{machine:?}");
    }
}
