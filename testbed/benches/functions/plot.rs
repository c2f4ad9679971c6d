//! Draws the figures: one picture for light pages, one for dark ones.

use std::{error::Error, fs, path::Path};

use plotters::{coord::Shift, prelude::*};

use crate::report::{Report, Spread, Spreads};

const SIZE: (u32, u32) = (860, 300);
/// On both axes, in ms; each shows those within its range.
const TICKS: [f64; 12] = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0];

struct Theme {
    name: &'static str,
    text: RGBColor,
    grid: RGBColor,
    ours: RGBColor,
    other: RGBColor,
}

const THEMES: [Theme; 2] = [
    Theme {
        name: "light",
        text: RGBColor(31, 35, 40),
        grid: RGBColor(225, 228, 232),
        ours: RGBColor(188, 76, 0),
        other: RGBColor(110, 119, 129),
    },
    Theme {
        name: "dark",
        text: RGBColor(230, 237, 243),
        grid: RGBColor(48, 54, 61),
        ours: RGBColor(255, 166, 87),
        other: RGBColor(139, 148, 158),
    },
];

/// Draws both pictures, and writes them into target/bench if `keep` is set.
///
/// # Panics
///
/// If that fails.
pub(crate) fn draw(report: &Report, keep: bool) {
    for theme in &THEMES {
        let mut svg = String::new();
        picture(report, theme, &mut svg).expect("drawing into memory");
        assert!(report.rows.iter().any(|row| svg.contains(&row.name)), "a picture without its subject");
        if keep {
            let name = format!("../target/bench/performance-{}.svg", theme.name);
            fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), svg).expect("the folder target/bench");
        }
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

fn picture(report: &Report, theme: &Theme, svg: &mut String) -> Result<(), Box<dyn Error>> {
    let (share, lines) = lines(report);
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let (left, right) = area.split_horizontally(480);
    let start = |line: &Line<'_>| [line.start.minimum, line.start.median, line.start.p95];
    half(&left, theme, &format!("exec to first answer with {share}, ms"), 100, &lines, start)?;
    let warm = |line: &Line<'_>| [line.warm.minimum, line.warm.median, line.warm.p99];
    half(&right, theme, &format!("warm with {share}, ms"), 10, &lines, warm)?;
    area.present()?;
    Ok(())
}

/// `value` returns the start of a line, its dot, and its end. Only the left half has the names.
fn half(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    theme: &Theme,
    caption: &str,
    names: i32,
    rows: &[Line<'_>],
    value: fn(&Line<'_>) -> [f64; 3],
) -> Result<(), Box<dyn Error>> {
    let values: Vec<[f64; 3]> = rows.iter().map(|row| value(row).map(|time| time / 1e3)).collect();
    let least = values.iter().map(|[least, ..]| *least).fold(f64::INFINITY, f64::min);
    let most = values.iter().map(|[.., most]| *most).fold(0.0, f64::max);
    let height = rows.len() as f64;
    let text = |size: f64| ("sans-serif", size).into_font().color(&theme.text);
    let (from, to) = (least * 0.8, most * 1.3);
    let ticks: Vec<f64> = TICKS.into_iter().filter(|tick| (from..to).contains(tick)).collect();
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(caption, text(16.0))
        .x_label_area_size(24)
        .y_label_area_size(names)
        .build_cartesian_2d((from..to).log_scale().with_key_points(ticks), height..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(TRANSPARENT)
        .bold_line_style(theme.grid)
        .axis_style(theme.grid)
        .x_labels(TICKS.len())
        .x_label_formatter(&|value| format!("{value}"))
        .label_style(text(13.0))
        .draw()?;
    for (at, (row, [start, dot, end])) in rows.iter().zip(values).enumerate() {
        let color = if row.ours { theme.ours } else { theme.other };
        let y = at as f64 + 0.5;
        chart.draw_series([PathElement::new(vec![(start, y), (end, y)], color.stroke_width(3))])?;
        chart.draw_series([Circle::new((dot, y), 5, color.filled())])?;
        if names > 10 {
            let (x, y) = chart.backend_coord(&(from, y));
            let (left, top) = area.get_base_pixel();
            let style = ("sans-serif", 14).into_font().color(if row.ours { &theme.ours } else { &theme.text });
            area.draw(&Text::new(row.name.to_owned(), (x - left - 92, y - top - 8), style))?;
        }
    }
    Ok(())
}
