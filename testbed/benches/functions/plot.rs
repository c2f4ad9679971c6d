//! The figures as a picture: one for light pages, one for dark ones.

use std::{error::Error, fs, path::Path};

use plotters::{coord::Shift, prelude::*};

use crate::{
    report::{Report, Row},
    spread::Spread,
};

const SIZE: (u32, u32) = (860, 300);
/// On both axes, each of which shows those within its range.
const TICKS: [f64; 9] = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];

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

/// Draws both pictures into target/bench, or, to see that it can be done, nowhere.
///
/// # Panics
///
/// When it cannot.
pub(crate) fn draw(report: &Report, keep: bool) {
    for theme in &THEMES {
        let mut svg = String::new();
        picture(report, theme, &mut svg).expect("drawing into memory");
        assert!(svg.contains("hello"), "a picture without its subject");
        if keep {
            let name = format!("../target/bench/performance-{}.svg", theme.name);
            fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), svg).expect("the folder target/bench");
        }
    }
}

fn picture(report: &Report, theme: &Theme, svg: &mut String) -> Result<(), Box<dyn Error>> {
    // The quickest at the top, in both halves; without other builds of a function, such as `hello-opt-3`.
    let mut rows: Vec<&Row> = report.rows.iter().filter(|row| !row.name.contains('-')).collect();
    rows.sort_by(|one, other| one.first_poll_us.median.total_cmp(&other.first_poll_us.median));
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let (left, right) = area.split_horizontally(480);
    half(&left, theme, "exec to first poll, ms", 100, &rows, |row| (row.first_poll_us, 1e3))?;
    half(&right, theme, "warm invocation, µs", 10, &rows, |row| (row.warm_us, 1.0))?;
    area.present()?;
    Ok(())
}

/// A dot for the median, a line from the minimum to the third quartile; only the left half has the names.
fn half(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    theme: &Theme,
    caption: &str,
    names: i32,
    rows: &[&Row],
    value: fn(&Row) -> (Spread, f64),
) -> Result<(), Box<dyn Error>> {
    let values: Vec<(Spread, f64)> = rows.iter().map(|row| value(row)).collect();
    let least = values.iter().map(|(spread, unit)| spread.minimum / unit).fold(f64::INFINITY, f64::min);
    let most = values.iter().map(|(spread, unit)| spread.p75 / unit).fold(0.0, f64::max);
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
    for (at, (row, (spread, unit))) in rows.iter().zip(values).enumerate() {
        let color = if row.ours { theme.ours } else { theme.other };
        let y = at as f64 + 0.5;
        let [minimum, median, p75] = [spread.minimum, spread.median, spread.p75].map(|value| value / unit);
        chart.draw_series([PathElement::new(vec![(minimum, y), (p75, y)], color.stroke_width(3))])?;
        chart.draw_series([Circle::new((median, y), 5, color.filled())])?;
        if names > 10 {
            let (x, y) = chart.backend_coord(&(from, y));
            let (left, top) = area.get_base_pixel();
            let style = ("sans-serif", 14).into_font().color(if row.ours { &theme.ours } else { &theme.text });
            area.draw(&Text::new(row.name.clone(), (x - left - 92, y - top - 8), style))?;
        }
    }
    Ok(())
}
