//! The results in tables, and a picture of them for light and dark pages.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path, slice, time::Duration};

use testbed::budget::Cost;

use crate::{
    fetch::{Concurrent, Fetch},
    share::{self, QuotaRow},
};

/// All results. Names contain the units.
pub(crate) struct Report {
    /// With the share of a core that Lambda gives.
    pub(crate) shared: Vec<QuotaRow>,
    /// On a whole core.
    pub(crate) rows: Vec<Row>,
    /// Of the function of this name, if there is one.
    pub(crate) fetch: Option<Fetch>,
}

/// One candidate.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) ours: bool,
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
    /// | `peak_bytes`, `logged_bytes` | memory after all invocations, and what each of them logs |
    /// | `zip_bytes` | the package |
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
#[derive(Clone, Copy)]
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
            let of = |name: &str| row.spreads[name];
            let ms = |us: f64| format!("{:.2}", us / 1e3);
            let poll = of("first_poll_us");
            let poll = [ms(poll.minimum), quartiles(&poll, 1e3), ms(of("first_poll_cpu_us").median)];
            let answer = [ms(of("first_answer_us").minimum), ms(of("first_answer_cpu_us").median)];
            let faults = format!("{:.0}", of("page_faults").median);
            let memory = ["resident_bytes", "resident_after_answer_bytes", "peak_bytes"];
            let memory = memory.map(|name| format!("{:.1}", of(name).median / 1e6));
            let zip = format!("{:.0}", of("zip_bytes").median / 1e3);
            [slice::from_ref(&row.name), &poll[..], &answer, &[faults], &memory, &[zip]].concat()
        };
        table(
            "Start (minimum; median, quartiles), memory and size",
            "first poll, ms | | CPU, ms | first answer, ms | CPU, ms | page faults | resident, MB | after an answer | peak | zip, kB",
            self.rows.iter().map(start),
        );
        let warm = |row: &Row| {
            let counts = ["start_instructions", "warm_instructions", "warm_allocations"];
            let counts = counts.map(|name| row.counts.get(name).map_or_else(String::new, u64::to_string));
            let (times, cpu) = (&row.spreads["warm_us"], row.spreads["warm_cpu_us"].median);
            let times = [quartiles(times, 1.0), format!("{:.0}", times.p99), format!("{cpu:.1}")];
            let logged = format!("{:.0}", row.spreads["logged_bytes"].median);
            [slice::from_ref(&row.name), &times[..], &[logged], &counts].concat()
        };
        table(
            "Warm, from the event to the answer (`fetch` out of its cache)",
            "median, quartiles, µs | p99, µs | CPU, µs | log, bytes | instructions: start | an invocation | allocations",
            self.rows.iter().map(warm),
        );
        let logged = |name: &str| self.row(name).map_or(0.0, |row| row.spreads["logged_bytes"].median);
        share::print_bill(&self.shared, logged);
        if let Some(fetch) = &self.fetch {
            print_fetch(fetch);
        }
        self.print_targets();
    }

    /// Prints the project's targets, of the candidates that are there.
    fn print_targets(&self) {
        let p95_ms = |name: &str| {
            let shared = self.shared.iter().find(|shared| shared.name == name && shared.is_smallest())?;
            Some(shared.spreads["first_answer_us"].p95 / 1e3)
        };
        let of = |name: &str, series: &str| Some(self.row(name)?.spreads[series]);
        let of_minima = |series, name, other| Some(of(name, series)?.minimum / of(other, series)?.minimum);
        let of_medians = |series, name, other| Some(of(name, series)?.median / of(other, series)?.median);
        let mb = |name, series| Some(of(name, series)?.median / 1e6);
        let ratio_of_p95 = |name, other| Some(p95_ms(name)? / p95_ms(other)?);
        let fetch = self.fetch.as_ref();
        let most = fetch.and_then(|fetch| fetch.concurrent.last());
        let own = |concurrent: &Concurrent| concurrent.own_per_second.median;
        let speed_up = fetch.and_then(|fetch| Some(own(fetch.concurrent.first()?) / own(most?)));
        println!("\n| what | must be | is | |\n| --- | ---: | ---: | --- |");
        for (what, most, is) in [
            ("`hello` first answer at 128 MB, p95 / bare", 0.5, ratio_of_p95("hello", "bare")),
            ("`time` first answer at 128 MB, p95 / bare", 0.5, ratio_of_p95("time", "bare")),
            ("`hello` first answer at 128 MB, p95 / davidrs", 0.4, ratio_of_p95("hello", "davidrs")),
            ("`fetch` first answer at 128 MB, over TLS, p95, ms", 6.0, p95_ms("fetch")),
            ("`hello` start / bare", 0.6, of_minima("first_poll_us", "hello", "bare")),
            ("`hello` start / lean", 0.75, of_minima("first_poll_us", "hello", "lean")),
            ("`hello` start / floor", 3.0, of_minima("first_poll_us", "hello", "floor")),
            ("`hello` start / davidrs", 0.6, of_minima("first_poll_us", "hello", "davidrs")),
            ("`hello` start / node", 0.05, of_minima("first_poll_us", "hello", "node")),
            ("`hello` start / python", 0.05, of_minima("first_poll_us", "hello", "python")),
            ("`hello` CPU of the first answer / bare", 0.65, of_medians("first_answer_cpu_us", "hello", "bare")),
            ("`hello` CPU of the first answer / floor", 1.25, of_medians("first_answer_cpu_us", "hello", "floor")),
            ("`fetch` start / hello", 1.4, of_minima("first_poll_us", "fetch", "hello")),
            ("`fetch` first answer, over TLS / naive", 0.5, of_minima("first_answer_us", "fetch", "naive")),
            ("`hello` warm / bare", 0.8, of_medians("warm_us", "hello", "bare")),
            ("`hello` warm / davidrs", 0.7, of_medians("warm_us", "hello", "davidrs")),
            ("`hello` warm / lean", 1.3, of_medians("warm_us", "hello", "lean")),
            ("`fetch` warm, out of its cache / hello", 1.3, of_medians("warm_us", "fetch", "hello")),
            ("`hello` zip, MB", 1.3, mb("hello", "zip_bytes")),
            ("`hello` resident, MB", 3.0, mb("hello", "resident_bytes")),
            ("`time` zip, MB", 1.3, mb("time", "zip_bytes")),
            ("`time` resident, MB", 3.0, mb("time", "resident_bytes")),
            ("`fetch` zip, MB", 3.6, mb("fetch", "zip_bytes")),
            ("`fetch` resident after answer, MB", 8.0, mb("fetch", "resident_after_answer_bytes")),
            ("`fetch` uncached, added µs", 80.0, fetch.map(|it| it.uncached_us.median - it.direct_us.median)),
            ("time for an answer, 64 in flight / 1", 0.2, speed_up),
            ("p99 / median at 64 in flight", 10.0, most.map(|it| it.latency_us.p99 / it.latency_us.median)),
        ] {
            let Some(is) = is else { continue };
            let reached = if is <= most { "reached" } else { "missed" };
            println!("| {what} | ≤ {} | {is:.2} | {reached} |", (most * 100.0).round() / 100.0);
        }
    }

    fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }
}

fn print_fetch(fetch: &Fetch) {
    let row = |(name, spread): (&str, &Spread)| {
        let added = spread.median - fetch.direct_us.median;
        vec![name.into(), quartiles(spread, 1.0), format!("{:.0}", spread.p99), format!("{added:+.0}")]
    };
    let rows = [("direct", &fetch.direct_us), ("uncached", &fetch.uncached_us), ("cached", &fetch.cached_us)].map(row);
    let title = "`fetch`, µs: its upstream called directly, through it, and out of its cache";
    table(title, "median, quartiles | p99 | added, median", rows.into_iter());
    println!("\nConnections opened for 10,000 of the uncached: {:.0}", fetch.connections_per_10000);
    let row = |concurrent: &Concurrent| {
        let Concurrent { in_flight, per_second, own_per_second, latency_us } = concurrent;
        let rates = [per_second, own_per_second].map(|rate| format!("{:.0}", rate.median));
        let times = [quartiles(latency_us, 1.0), format!("{:.0}", latency_us.p99)];
        [&[in_flight.to_string()], &rates[..], &times].concat()
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

/// On both axes, in ms; each shows those within its range.
const TICKS: [f64; 12] = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0];

/// The colours of text, of the grid, of this repository's functions, and of others.
const STYLE: &str = "<style>
svg { --text: #1f2328; --grid: #e1e4e8; --ours: #bc4c00; --other: #6e7781 }
@media (prefers-color-scheme: dark) { svg { --text: #e6edf3; --grid: #30363d; --ours: #ffa657; --other: #8b949e } }
</style>
";

/// Draws the picture, and writes it into target/bench if `keep` is set.
pub(crate) fn draw(report: &Report, keep: bool) {
    let svg = picture(report);
    if keep && !report.shared.is_empty() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench/performance.svg");
        fs::write(file, svg).expect("the folder target/bench");
        println!("\nwritten: target/bench/performance.svg");
    }
}

/// With the smallest share of a core that Lambda gives. The quickest is at the top. Without a quota, it is empty.
fn picture(report: &Report) -> String {
    let mut lines: Vec<&QuotaRow> = report.shared.iter().filter(|row| row.is_smallest()).collect();
    let start = |row: &QuotaRow| row.spreads["first_answer_us"].median;
    lines.sort_by(|one, other| start(one).total_cmp(&start(other)));
    let height = 70 + 22 * lines.len();
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {height}" font-family="sans-serif" font-size="13" fill="var(--text)">{STYLE}"#
    );
    let start = |Spread { minimum, median, p95, .. }| [minimum, median, p95];
    half(&mut svg, "exec to first answer with 128 MB, ms", 110.0..460.0, &lines, ("first_answer_us", start));
    let warm = |Spread { minimum, median, p99, .. }| [minimum, median, p99];
    half(&mut svg, "warm with 128 MB, ms", 500.0..840.0, &lines, ("warm_us", warm));
    for (at, line) in lines.iter().enumerate() {
        let (color, name) = (if line.ours { "ours" } else { "text" }, &line.name);
        let _ = write!(svg, r#"<text x="10" y="{}" fill="var(--{color})">{name}</text>"#, 54 + 22 * at);
    }
    svg + "</svg>\n"
}

/// Draws the times of this name between these `x`, on a logarithmic axis. `value` is the start of a line, its dot, and its end.
fn half(
    svg: &mut String,
    caption: &str,
    x: std::ops::Range<f64>,
    lines: &[&QuotaRow],
    (times, value): (&str, fn(Spread) -> [f64; 3]),
) {
    let values: Vec<[f64; 3]> = lines.iter().map(|line| value(line.spreads[times]).map(|time| time / 1e3)).collect();
    let least = values.iter().map(|[least, ..]| *least).fold(f64::INFINITY, f64::min) * 0.8;
    let most = values.iter().map(|[.., most]| *most).fold(0.0, f64::max) * 1.3;
    let place = |ms: f64| x.start + (x.end - x.start) * (ms / least).ln() / (most / least).ln();
    let bottom = 45 + 22 * lines.len();
    let mut add = |element: String| svg.extend([&*element, "\n"]);
    add(format!(r#"<text x="{}" y="20" font-size="16">{caption}</text>"#, x.start));
    for tick in TICKS.into_iter().filter(|tick| (least..most).contains(tick)) {
        let x = place(tick);
        add(format!(r#"<path d="M{x:.1} 32V{bottom}" stroke="var(--grid)"/>"#));
        add(format!(r#"<text x="{x:.1}" y="{}" text-anchor="middle">{tick}</text>"#, bottom + 16));
    }
    for (at, (line, values)) in lines.iter().zip(values).enumerate() {
        let (color, y) = (if line.ours { "ours" } else { "other" }, 49 + 22 * at);
        let [start, dot, end] = values.map(place);
        add(format!(r#"<path d="M{start:.1} {y}H{end:.1}" stroke="var(--{color})" stroke-width="3"/>"#));
        add(format!(r#"<circle cx="{dot:.1}" cy="{y}" r="5" fill="var(--{color})"/>"#));
    }
}
