//! Which of the machine's cores the bench and all that it starts run on, in the notation of `/proc`: `0-1,3`.

use std::{
    fs,
    process::{Command, Stdio, id},
};

/// Those that this process may use now.
pub(crate) fn allowed() -> String {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.expect("a list of cores").trim().to_owned()
}

/// The last one of `cores`: the first one serves interrupts.
pub(crate) fn last(cores: &str) -> &str {
    cores.rsplit([',', '-']).next().unwrap_or(cores)
}

/// Moves the main thread to `cores`; what it starts from then on, threads and processes, stays there, too. All threads
/// cannot be moved: one that ends meanwhile makes `taskset` fail.
pub(crate) fn keep_to(cores: &str) {
    let mut taskset = Command::new("taskset");
    taskset.args(["--cpu-list", "--pid", cores]).arg(id().to_string()).stdout(Stdio::null());
    assert!(taskset.status().is_ok_and(|status| status.success()), "`taskset` of util-linux could not do its work");
}
