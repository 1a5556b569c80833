//! Plots as SVG, without a plotting library.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 270.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 50.0;
const ROW: f64 = 34.0;

/// One bar: what it is, how long, the range it was measured in, and whether it is ours.
#[derive(Debug, Clone)]
pub struct Bar {
    pub label: String,
    pub value: f64,
    pub range: Option<(f64, f64)>,
    pub ours: bool,
    /// The value as text.
    pub text: String,
}

/// Horizontal bars from zero, in the order given.
pub fn bars(title: &str, bars: &[Bar]) -> String {
    let longest = |bar: &Bar| bar.range.map_or(bar.value, |(_, most)| most.max(bar.value));
    let most = bars.iter().map(longest).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / most;
    let mut body = String::new();
    for (row, bar) in (0u32..).zip(bars) {
        let y = TOP + f64::from(row) * ROW;
        let fill = if bar.ours { "#1f6feb" } else { "#9aa4b2" };
        let length = bar.value * scale;
        text(&mut body, LEFT - 10.0, y + 16.0, "end", 14, &bar.label);
        let _ = writeln!(
            body,
            r#"<rect x="{LEFT}" y="{y:.1}" width="{length:.1}" height="22" rx="2" fill="{fill}"/>"#
        );
        if let Some((least, most)) = bar.range {
            let (from, to, middle) = (LEFT + least * scale, LEFT + most * scale, y + 11.0);
            let _ = writeln!(
                body,
                r##"<path d="M{from:.1} {middle:.1}H{to:.1}M{from:.1} {:.1}v10M{to:.1} {:.1}v10" stroke="#30363d" fill="none"/>"##,
                middle - 5.0,
                middle - 5.0
            );
        }
        text(&mut body, LEFT + longest(bar) * scale + 8.0, y + 16.0, "start", 14, &bar.text);
    }
    frame(title, TOP + ROW * bars.len() as f64 + 10.0, &body)
}

/// A curve through `points` (x ascending), with marks on the vertical axis and a limit to stay below.
pub fn curve(title: &str, points: &[(f64, f64)], limit: f64, unit: &str, horizontal: &str) -> String {
    let (left, right, top, bottom) = (70.0, WIDTH - 30.0, TOP, 290.0);
    let highest = points.iter().map(|point| point.1).fold(limit, f64::max) * 1.05;
    let last = points.last().map_or(1.0, |point| point.0);
    let x = |value: f64| left + (right - left) * value / last;
    let y = |value: f64| bottom - (bottom - top) * value / highest;
    let mut body = String::new();
    for mark in 0..=4 {
        let value = highest * f64::from(mark) / 4.0;
        let _ = writeln!(body, r##"<path d="M{left} {:.1}H{right}" stroke="#d8dee4"/>"##, y(value));
        text(&mut body, left - 8.0, y(value) + 5.0, "end", 12, &format!("{value:.1} {unit}"));
    }
    let _ = writeln!(
        body,
        r##"<path d="M{left} {:.1}H{right}" stroke="#cf222e" stroke-dasharray="6 4"/>"##,
        y(limit)
    );
    text(&mut body, right, y(limit) - 6.0, "end", 12, &format!("target: {limit} {unit}"));
    for mark in [0.0, 25.0, 50.0, 75.0, 100.0] {
        text(
            &mut body,
            x(last * mark / 100.0),
            bottom + 16.0,
            "middle",
            12,
            &format!("{:.0}", last * mark / 100.0),
        );
    }
    let path: Vec<String> = points.iter().map(|(px, py)| format!("{:.1} {:.1}", x(*px), y(*py))).collect();
    let _ =
        writeln!(body, r##"<path d="M{}" stroke="#1f6feb" stroke-width="2" fill="none"/>"##, path.join("L"));
    text(&mut body, f64::midpoint(left, right), bottom + 32.0, "middle", 12, horizontal);
    frame(title, bottom + 44.0, &body)
}

fn frame(title: &str, height: f64, body: &str) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"system-ui, sans-serif\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    text(&mut svg, 20.0, 28.0, "start", 17, title);
    svg.push_str(body);
    svg.push_str("</svg>\n");
    svg
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, size: u32, what: &str) {
    let what = what.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        r##"<text x="{x:.1}" y="{y:.1}" font-size="{size}" text-anchor="{anchor}" fill="#1f2328">{what}</text>"##
    );
}
