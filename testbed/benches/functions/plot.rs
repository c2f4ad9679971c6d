//! Draws the figures: a picture for light and dark pages.

use std::{fmt::Write, fs, path::Path};

use crate::report::{Report, Spread, Spreads};

/// On both axes, in ms; each shows those within its range.
const TICKS: [f64; 12] = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0];

/// The colours of text, of the grid, of this repository's functions, and of others.
const STYLE: &str = "<style>
svg { --text: #1f2328; --grid: #e1e4e8; --ours: #bc4c00; --other: #6e7781 }
@media (prefers-color-scheme: dark) { svg { --text: #e6edf3; --grid: #30363d; --ours: #ffa657; --other: #8b949e } }
</style>
";

/// Draws the picture, and writes it into target/bench if `keep` is set.
///
/// # Panics
///
/// If that fails.
pub(crate) fn draw(report: &Report, keep: bool) {
    let svg = picture(report);
    assert!(report.rows.iter().any(|row| svg.contains(&row.name)), "a picture without its subject");
    if keep {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench/performance.svg");
        fs::write(file, svg).expect("the folder target/bench");
    }
}

/// A candidate, and its times in µs.
struct Line<'a> {
    name: &'a str,
    ours: bool,
    start: Spread,
    warm: Spread,
}

/// With the smallest share of a core that Lambda gives, or with a whole core if there is no quota.
fn lines(report: &Report) -> (&'static str, Vec<Line<'_>>) {
    let line = |name, ours, spreads: &Spreads| Line {
        name,
        ours,
        start: spreads["first_answer_us"],
        warm: spreads["warm_us"],
    };
    let smallest = report.shared.iter().filter(|row| row.is_smallest());
    let (share, lines): (_, Vec<Line<'_>>) = if report.shared.is_empty() {
        ("a whole core", report.rows.iter().map(|row| line(&*row.name, row.ours, &row.spreads)).collect())
    } else {
        ("128 MB", smallest.map(|row| line(&*row.name, row.ours, &row.spreads)).collect())
    };
    // The quickest at the top, in both halves; without other builds of a function, such as `hello-opt-3`.
    let mut lines: Vec<Line<'_>> = lines.into_iter().filter(|line| !line.name.contains('-')).collect();
    lines.sort_by(|one, other| one.start.median.total_cmp(&other.start.median));
    (share, lines)
}

fn picture(report: &Report) -> String {
    let (share, lines) = lines(report);
    let height = 70 + 22 * lines.len();
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {height}" font-family="sans-serif" font-size="13" fill="var(--text)">{STYLE}"#
    );
    let start = |line: &Line<'_>| [line.start.minimum, line.start.median, line.start.p95];
    half(&mut svg, &format!("exec to first answer with {share}, ms"), 110.0..460.0, &lines, start);
    let warm = |line: &Line<'_>| [line.warm.minimum, line.warm.median, line.warm.p99];
    half(&mut svg, &format!("warm with {share}, ms"), 500.0..840.0, &lines, warm);
    for (at, line) in lines.iter().enumerate() {
        let color = if line.ours { "ours" } else { "text" };
        let _ = write!(svg, r#"<text x="10" y="{}" fill="var(--{color})">{}</text>"#, 54 + 22 * at, line.name);
    }
    svg + "</svg>\n"
}

/// Draws between these `x`, on a logarithmic axis. `value` returns the start of a line, its dot, and its end.
fn half(
    svg: &mut String,
    caption: &str,
    x: std::ops::Range<f64>,
    lines: &[Line<'_>],
    value: fn(&Line<'_>) -> [f64; 3],
) {
    let values: Vec<[f64; 3]> = lines.iter().map(|line| value(line).map(|time| time / 1e3)).collect();
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
