//! What a running process has used so far, from `/proc`.

use std::{fs, path::Path, time::Duration};

/// What a process and its threads have used since exec.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Processor time, to the nanosecond. (The `stat` file counts in hundredths of a second.)
    pub cpu: Duration,
    /// Pages that were mapped from memory when they were first touched.
    pub minor_faults: u64,
    /// Pages that had to be read from disk.
    pub major_faults: u64,
    /// What is in memory now, in bytes.
    pub resident: u64,
    /// The most that was ever in memory, in bytes.
    pub peak: u64,
    /// The files that are open now, sockets included.
    pub open_files: usize,
    /// Whether its main thread waits for something.
    pub sleeps: bool,
}

impl Usage {
    /// The usage of the process `id`.
    pub fn of(id: u32) -> Self {
        let process = Path::new("/proc").join(id.to_string());
        let read = |file: &str| fs::read_to_string(process.join(file)).expect("a running process, and Linux");
        let stat = read("stat");
        // The second field is the executable's name, which may hold anything.
        let (_, stat) = stat.rsplit_once(") ").expect("a name in parentheses");
        let stat: Vec<&str> = stat.split(' ').collect();
        let status = read("status");
        let kilobytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            1024 * line.map_or(0, |line| number(line.trim_start_matches(':').trim().trim_end_matches(" kB")))
        };
        Self {
            cpu: cpu(&process),
            minor_faults: number(stat[7]),
            major_faults: number(stat[9]),
            resident: kilobytes("VmRSS"),
            peak: kilobytes("VmHWM"),
            open_files: fs::read_dir(process.join("fd")).expect("a running process").count(),
            sleeps: stat[0] == "S",
        }
    }
}

/// The time on a core, of all live threads.
fn cpu(process: &Path) -> Duration {
    let threads = fs::read_dir(process.join("task")).expect("a running process");
    // A thread may end before its file is read.
    let files = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
    let cpu = files.filter_map(|file| Some(number(file.split_whitespace().next()?)));
    Duration::from_nanos(cpu.sum())
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number in /proc")
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_process_that_works_has_used_something() {
        // Another process, because this one's threads come and go with the other tests.
        let mut shell = Command::new("sh");
        let mut shell =
            shell.args(["-c", "echo; read line"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        shell.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let usage = Usage::of(shell.id());
        shell.kill().unwrap();
        shell.wait().unwrap();
        assert!(usage.cpu > Duration::ZERO && usage.minor_faults > 0 && usage.open_files >= 3, "{usage:?}");
        assert!(usage.resident > 0 && usage.peak >= usage.resident, "{usage:?}");
    }
}
