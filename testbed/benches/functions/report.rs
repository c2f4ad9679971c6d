//! The results, for people and for programs.

use serde::Serialize;
use testbed::budget::Cost;

use crate::{
    fetch::{Concurrent, Fetch},
    share::{self, Shared},
    spread::Spread,
};

/// All results. In JSON, names contain the units.
#[derive(Serialize)]
pub(crate) struct Report {
    /// With the share of a core that Lambda gives.
    pub(crate) shared: Vec<Shared>,
    /// On a whole core.
    pub(crate) rows: Vec<Row>,
    pub(crate) fetch: Fetch,
}

/// One candidate.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) ours: bool,
    pub(crate) binary_bytes: u64,
    pub(crate) zip_bytes: u64,
    /// From exec to the first poll.
    pub(crate) first_poll_us: Spread,
    pub(crate) first_poll_cpu_us: Spread,
    /// From exec to the answer of the first invocation. A candidate that fetches does so over TLS.
    pub(crate) first_answer_us: Spread,
    pub(crate) first_answer_cpu_us: Spread,
    /// Until the first answer.
    pub(crate) page_faults: Spread,
    pub(crate) resident_bytes: Spread,
    pub(crate) resident_after_answer_bytes: Spread,
    /// After all its invocations.
    pub(crate) peak_bytes: u64,
    /// From the event to the answer. `fetch` answers from its cache.
    pub(crate) warm_us: Spread,
    pub(crate) warm_cpu_us: Spread,
    /// Per invocation.
    pub(crate) logged_bytes: f64,
    /// The gate's counts, for this repository's functions.
    pub(crate) counts: Cost,
}

impl Report {
    /// Prints tables in Markdown.
    pub(crate) fn print(&self) {
        share::print(&self.shared);
        println!("\nStart (minimum; median, quartiles), memory and size:\n");
        println!(
            "| | first poll, ms | | CPU, ms | first answer, ms | CPU, ms | page faults | resident, MB | after an answer | peak | zip, kB |"
        );
        println!("| --- |{}", " ---: |".repeat(10));
        for row in &self.rows {
            println!(
                "| {} | {:.2} | {} | {:.2} | {:.2} | {:.2} | {:.0} | {:.1} | {:.1} | {:.1} | {:.0} |",
                row.name,
                row.first_poll_us.minimum / 1e3,
                quartiles(&row.first_poll_us, 1e3),
                row.first_poll_cpu_us.median / 1e3,
                row.first_answer_us.minimum / 1e3,
                row.first_answer_cpu_us.median / 1e3,
                row.page_faults.median,
                row.resident_bytes.median / 1e6,
                row.resident_after_answer_bytes.median / 1e6,
                row.peak_bytes as f64 / 1e6,
                row.zip_bytes as f64 / 1e3,
            );
        }
        println!("\nWarm, from the event to the answer (`fetch` out of its cache):\n");
        println!(
            "| | median, quartiles, µs | p99, µs | CPU, µs | log, bytes | instructions: start | an invocation | allocations |"
        );
        println!("| --- |{}", " ---: |".repeat(7));
        for row in &self.rows {
            let count = |name| row.counts.get(name).map_or_else(String::new, u64::to_string);
            println!(
                "| {} | {} | {:.0} | {:.1} | {:.0} | {} | {} | {} |",
                row.name,
                quartiles(&row.warm_us, 1.0),
                row.warm_us.p99,
                row.warm_cpu_us.median,
                row.logged_bytes,
                count("start_instructions"),
                count("warm_instructions"),
                count("warm_allocations"),
            );
        }
        share::print_bill(&self.shared, |name| self.row(name).map_or(0.0, |row| row.logged_bytes));
        self.print_fetch();
        self.print_targets();
    }

    fn print_fetch(&self) {
        let fetch = &self.fetch;
        println!("\n`fetch`, µs: its upstream called directly, through it, and out of its cache:\n");
        println!("| | median, quartiles | p99 | added, median |\n| --- | ---: | ---: | ---: |");
        for (name, spread) in
            [("direct", &fetch.direct_us), ("uncached", &fetch.uncached_us), ("cached", &fetch.cached_us)]
        {
            let added = spread.median - fetch.direct_us.median;
            println!("| {name} | {} | {:.0} | {added:+.0} |", quartiles(spread, 1.0), spread.p99);
        }
        println!("\nConnections opened for 10,000 of the uncached: {:.0}", fetch.connections_per_10000);
        println!("\n`fetch` out of its cache, `AWS_LAMBDA_MAX_CONCURRENCY` and as many in flight:\n");
        println!("| in flight | a second, median | the measurer counted off | median, quartiles, µs | p99, µs |");
        println!("|{}", " ---: |".repeat(5));
        for concurrent in &fetch.concurrent {
            println!(
                "| {} | {:.0} | {:.0} | {} | {:.0} |",
                concurrent.in_flight,
                concurrent.per_second.median,
                concurrent.own_per_second.median,
                quartiles(&concurrent.latency_us, 1.0),
                concurrent.latency_us.p99,
            );
        }
    }

    /// Prints the project's targets, if the candidates for the comparison are there.
    fn print_targets(&self) {
        println!("\n| what | must be | is | |\n| --- | ---: | ---: | --- |");
        let target = |what: &str, most: f64, is: f64| {
            println!(
                "| {what} | ≤ {} | {is:.2} | {} |",
                (most * 100.0).round() / 100.0,
                if is <= most { "reached" } else { "missed" }
            );
        };
        let ratio = |what: &str, most: f64, of: &str, over: &str, value: fn(&Row) -> f64| {
            if let (Some(of), Some(over)) = (self.row(of), self.row(over)) {
                target(what, most, value(of) / value(over));
            }
        };
        let p95_of = |name: &str, memory_mb: u64| {
            let shared = self.shared.iter().find(|shared| shared.name == name && shared.has(memory_mb));
            shared.map(|shared| shared.first_answer_us.p95 / 1e3)
        };
        for name in ["hello", "time"] {
            if let (Some(is), Some(bare)) = (p95_of(name, 128), p95_of("bare", 128)) {
                target(&format!("`{name}` first answer at 128 MB, p95 / bare"), 0.5, is / bare);
            }
        }
        if let (Some(is), Some(whole)) = (p95_of("fetch", 256), self.row("fetch")) {
            // One slice is 20 ms.
            let most = 1.5 * whole.first_answer_us.median / 1e3 + 20.0;
            target("`fetch` first answer at 256 MB, over TLS, p95, ms", most, is);
        }
        let first_poll = |row: &Row| row.first_poll_us.minimum;
        let warm = |row: &Row| row.warm_us.median;
        for (other, most) in [("bare", 0.6), ("lean", 0.75), ("floor", 3.0), ("node", 0.05), ("python", 0.05)] {
            ratio(&format!("`hello` start / {other}"), most, "hello", other, first_poll);
        }
        let cpu = |row: &Row| row.first_answer_cpu_us.median;
        ratio("`hello` CPU of the first answer / bare", 0.65, "hello", "bare", cpu);
        // If somebody has put builds of an older commit beside the candidates.
        ratio("`hello` CPU of the first answer / an older build's", 0.85, "hello", "hello-old", cpu);
        ratio("`fetch` CPU of the first answer / an older build's", 0.8, "fetch", "fetch-old", cpu);
        ratio("`fetch` start / `hello`", 1.4, "fetch", "hello", first_poll);
        let first_answer = |row: &Row| row.first_answer_us.minimum;
        ratio("`fetch` first answer, over TLS / naive", 0.5, "fetch", "naive", first_answer);
        ratio("`hello` warm / bare", 0.8, "hello", "bare", warm);
        ratio("`hello` warm / lean", 1.3, "hello", "lean", warm);
        ratio("`fetch` warm, out of its cache / `hello`", 1.3, "fetch", "hello", warm);
        let fetch = &self.fetch;
        target("`fetch` uncached, added µs", 80.0, fetch.uncached_us.median - fetch.direct_us.median);
        for (name, zip, resident) in [("hello", 1.3, 3.0), ("time", 1.3, 3.0), ("fetch", 3.6, 8.0)] {
            if let Some(row) = self.row(name) {
                target(&format!("`{name}` zip, MB"), zip, row.zip_bytes as f64 / 1e6);
                let (when, bytes) = if name == "fetch" {
                    ("after its first fetch", &row.resident_after_answer_bytes)
                } else {
                    ("after start", &row.resident_bytes)
                };
                target(&format!("`{name}` resident {when}, MB"), resident, bytes.median / 1e6);
            }
        }
        if let [one, .., most] = &fetch.concurrent[..] {
            let own = |concurrent: &Concurrent| concurrent.own_per_second.median;
            target("time for an answer, 64 in flight / 1", 0.2, own(one) / own(most));
            target("p99 / median at 64 in flight", 10.0, most.latency_us.p99 / most.latency_us.median);
        }
    }

    fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }
}

fn quartiles(spread: &Spread, unit: f64) -> String {
    let [p25, median, p75] = [spread.p25, spread.median, spread.p75].map(|value| value / unit);
    if unit > 1.0 { format!("{median:.2} ({p25:.2}…{p75:.2})") } else { format!("{median:.0} ({p25:.0}…{p75:.0})") }
}
