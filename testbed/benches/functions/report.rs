//! The results, for people and for programs.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use testbed::budget::Cost;

use crate::{
    fetch::{Concurrent, Fetch},
    share::{self, QuotaRow},
};

/// All results. In JSON, names contain the units.
#[derive(Serialize)]
pub(crate) struct Report {
    /// With the share of a core that Lambda gives.
    pub(crate) shared: Vec<QuotaRow>,
    /// On a whole core.
    pub(crate) rows: Vec<Row>,
    /// Of the function of this name, if there is one.
    pub(crate) fetch: Option<Fetch>,
}

/// One candidate.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) ours: bool,
    pub(crate) binary_bytes: u64,
    pub(crate) zip_bytes: u64,
    /// After all its invocations.
    pub(crate) peak_bytes: u64,
    /// Per invocation.
    pub(crate) logged_bytes: f64,
    /// The gate's counts, for this repository's functions.
    pub(crate) counts: Cost,
    /// | name | what |
    /// | --- | --- |
    /// | `first_poll_us`, `first_poll_cpu_us` | from exec to the first poll |
    /// | `first_answer_us`, `first_answer_cpu_us` | to the answer of the first invocation, with a call over TLS if it makes one |
    /// | `page_faults` | until the first answer |
    /// | `resident_bytes`, `resident_after_answer_bytes` | memory at the first poll, and after the first answer |
    /// | `warm_us` | from the event to the answer; `fetch` answers from its cache |
    /// | `warm_cpu_us` | the means of the batches |
    #[serde(flatten)]
    pub(crate) spreads: Spreads,
}

/// Spreads by name.
pub(crate) type Spreads = BTreeMap<&'static str, Spread>;

/// Series of measurements by name.
#[derive(Default)]
pub(crate) struct Samples(BTreeMap<&'static str, Vec<f64>>);

impl Samples {
    pub(crate) fn add(&mut self, name: &'static str, value: f64) {
        self.0.entry(name).or_default().push(value);
    }

    /// Adds `times`, in microseconds.
    pub(crate) fn add_times(&mut self, name: &'static str, times: &[Duration]) {
        self.0.entry(name).or_default().extend(times.iter().map(|time| time.as_secs_f64() * 1e6));
    }

    pub(crate) fn of(&self, name: &str) -> &[f64] {
        &self.0[name]
    }

    pub(crate) fn spreads(self) -> Spreads {
        self.0.into_iter().map(|(name, values)| (name, Spread::of(values))).collect()
    }
}

/// Prints a table in Markdown, unless it has no rows. `columns` are those after the first, which holds names.
pub(crate) fn table(title: &str, columns: &str, rows: impl Iterator<Item = Vec<String>>) {
    let mut rows = rows.peekable();
    if rows.peek().is_some() {
        let aligned = " ---: |".repeat(columns.split('|').count());
        println!("\n{title}:\n\n| | {columns} |\n| --- |{aligned}");
        rows.for_each(|row| println!("| {} |", row.join(" | ")));
    }
}

/// Quantiles of a series, in the unit of its values.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) minimum: f64,
    pub(crate) p25: f64,
    pub(crate) median: f64,
    pub(crate) p75: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
}

impl Spread {
    /// Of `values`. There must be at least one.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let quantile = |percent: usize| values[(values.len() - 1) * percent / 100];
        let [minimum, p25, median, p75, p95, p99] = [0, 25, 50, 75, 95, 99].map(quantile);
        Self { minimum, p25, median, p75, p95, p99 }
    }

    /// The same in another unit.
    pub(crate) fn map(self, unit: impl Fn(f64) -> f64) -> Self {
        let Self { minimum, p25, median, p75, p95, p99 } = self;
        let [minimum, p25, median, p75, p95, p99] = [minimum, p25, median, p75, p95, p99].map(unit);
        Self { minimum, p25, median, p75, p95, p99 }
    }

    /// Of `times`, in microseconds.
    pub(crate) fn of_times(times: &[Duration]) -> Self {
        Self::of(times.iter().map(|time| time.as_secs_f64() * 1e6))
    }
}

impl Report {
    /// Prints tables in Markdown.
    pub(crate) fn print(&self) {
        share::print(&self.shared);
        let start = |row: &Row| {
            let ms = |name: &str| row.spreads[name].map(|value| value / 1e3);
            let mb = |bytes: f64| format!("{:.1}", bytes / 1e6);
            vec![
                row.name.clone(),
                format!("{:.2}", ms("first_poll_us").minimum),
                quartiles(&row.spreads["first_poll_us"], 1e3),
                format!("{:.2}", ms("first_poll_cpu_us").median),
                format!("{:.2}", ms("first_answer_us").minimum),
                format!("{:.2}", ms("first_answer_cpu_us").median),
                format!("{:.0}", row.spreads["page_faults"].median),
                mb(row.spreads["resident_bytes"].median),
                mb(row.spreads["resident_after_answer_bytes"].median),
                mb(row.peak_bytes as f64),
                format!("{:.0}", row.zip_bytes as f64 / 1e3),
            ]
        };
        table(
            "Start (minimum; median, quartiles), memory and size",
            "first poll, ms | | CPU, ms | first answer, ms | CPU, ms | page faults | resident, MB | after an answer | peak | zip, kB",
            self.rows.iter().map(start),
        );
        let warm = |row: &Row| {
            let count = |name| row.counts.get(name).map_or_else(String::new, u64::to_string);
            let times = &row.spreads["warm_us"];
            let mut cells = vec![row.name.clone(), quartiles(times, 1.0), format!("{:.0}", times.p99)];
            cells.extend([format!("{:.1}", row.spreads["warm_cpu_us"].median), format!("{:.0}", row.logged_bytes)]);
            cells.extend(["start_instructions", "warm_instructions", "warm_allocations"].map(count));
            cells
        };
        table(
            "Warm, from the event to the answer (`fetch` out of its cache)",
            "median, quartiles, µs | p99, µs | CPU, µs | log, bytes | instructions: start | an invocation | allocations",
            self.rows.iter().map(warm),
        );
        share::print_bill(&self.shared, |name| self.row(name).map_or(0.0, |row| row.logged_bytes));
        if let Some(fetch) = &self.fetch {
            print_fetch(fetch);
        }
        self.print_targets();
    }

    /// Prints the project's targets, if the candidates for the comparison are there.
    fn print_targets(&self) {
        println!("\n| what | must be | is | |\n| --- | ---: | ---: | --- |");
        let target = |what: &str, most: f64, is: f64| {
            let reached = if is <= most { "reached" } else { "missed" };
            println!("| {what} | ≤ {} | {is:.2} | {reached} |", (most * 100.0).round() / 100.0);
        };
        let p95_of = |name: &str, memory_mb: u64| {
            let shared = self.shared.iter().find(|shared| shared.name == name && shared.has(memory_mb));
            shared.map(|shared| shared.spreads["first_answer_us"].p95 / 1e3)
        };
        for name in ["hello", "time"] {
            if let (Some(is), Some(bare)) = (p95_of(name, 128), p95_of("bare", 128)) {
                target(&format!("`{name}` first answer at 128 MB, p95 / bare"), 0.5, is / bare);
            }
        }
        if let (Some(is), Some(davidrs)) = (p95_of("hello", 128), p95_of("davidrs", 128)) {
            target("`hello` first answer at 128 MB, p95 / davidrs", 0.4, is / davidrs);
        }
        if let (Some(is), Some(whole)) = (p95_of("fetch", 256), self.row("fetch")) {
            // One slice is 20 ms.
            let most = 1.5 * whole.spreads["first_answer_us"].median / 1e3 + 20.0;
            target("`fetch` first answer at 256 MB, over TLS, p95, ms", most, is);
        }
        let first_poll: Value = |row| row.spreads["first_poll_us"].minimum;
        let first_answer: Value = |row| row.spreads["first_answer_us"].minimum;
        let cpu: Value = |row| row.spreads["first_answer_cpu_us"].median;
        let warm: Value = |row| row.spreads["warm_us"].median;
        for (what, most, of, over, value) in [
            ("start", 0.6, "hello", "bare", first_poll),
            ("start", 0.75, "hello", "lean", first_poll),
            ("start", 3.0, "hello", "floor", first_poll),
            ("start", 0.6, "hello", "davidrs", first_poll),
            ("start", 0.05, "hello", "node", first_poll),
            ("start", 0.05, "hello", "python", first_poll),
            ("CPU of the first answer", 0.65, "hello", "bare", cpu),
            ("CPU of the first answer", 1.25, "hello", "floor", cpu),
            // If somebody has put builds of an older commit beside the candidates.
            ("CPU of the first answer", 0.85, "hello", "hello-old", cpu),
            ("CPU of the first answer", 0.8, "fetch", "fetch-old", cpu),
            ("start", 1.4, "fetch", "hello", first_poll),
            ("first answer, over TLS", 0.5, "fetch", "naive", first_answer),
            ("warm", 0.8, "hello", "bare", warm),
            ("warm", 0.7, "hello", "davidrs", warm),
            ("warm", 1.3, "hello", "lean", warm),
            ("warm, out of its cache", 1.3, "fetch", "hello", warm),
        ] {
            if let (Some(of), Some(over)) = (self.row(of), self.row(over)) {
                target(&format!("`{}` {what} / {}", of.name, over.name), most, value(of) / value(over));
            }
        }
        for (name, zip, when, resident) in
            [("hello", 1.3, "", 3.0), ("time", 1.3, "", 3.0), ("fetch", 3.6, "_after_answer", 8.0)]
        {
            if let Some(row) = self.row(name) {
                target(&format!("`{name}` zip, MB"), zip, row.zip_bytes as f64 / 1e6);
                let bytes = row.spreads[&*format!("resident{when}_bytes")];
                target(&format!("`{name}` resident{}, MB", when.replace('_', " ")), resident, bytes.median / 1e6);
            }
        }
        let Some(fetch) = &self.fetch else { return };
        target("`fetch` uncached, added µs", 80.0, fetch.uncached_us.median - fetch.direct_us.median);
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

type Value = fn(&Row) -> f64;

fn print_fetch(fetch: &Fetch) {
    let row = |(name, spread): (&str, &Spread)| {
        let added = spread.median - fetch.direct_us.median;
        vec![name.into(), quartiles(spread, 1.0), format!("{:.0}", spread.p99), format!("{added:+.0}")]
    };
    table(
        "`fetch`, µs: its upstream called directly, through it, and out of its cache",
        "median, quartiles | p99 | added, median",
        [("direct", &fetch.direct_us), ("uncached", &fetch.uncached_us), ("cached", &fetch.cached_us)]
            .into_iter()
            .map(row),
    );
    println!("\nConnections opened for 10,000 of the uncached: {:.0}", fetch.connections_per_10000);
    let row = |concurrent: &Concurrent| {
        let rates = [concurrent.per_second.median, concurrent.own_per_second.median].map(|rate| format!("{rate:.0}"));
        let times = [quartiles(&concurrent.latency_us, 1.0), format!("{:.0}", concurrent.latency_us.p99)];
        [concurrent.in_flight.to_string()].into_iter().chain(rates).chain(times).collect()
    };
    table(
        "`fetch` out of its cache, `AWS_LAMBDA_MAX_CONCURRENCY` and as many in flight",
        "a second, median | the measurer counted off | median, quartiles, µs | p99, µs",
        fetch.concurrent.iter().map(row),
    );
}

fn quartiles(spread: &Spread, unit: f64) -> String {
    let [p25, median, p75] = [spread.p25, spread.median, spread.p75].map(|value| value / unit);
    if unit > 1.0 { format!("{median:.2} ({p25:.2}…{p75:.2})") } else { format!("{median:.0} ({p25:.0}…{p75:.0})") }
}
