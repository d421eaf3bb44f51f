//! The report as a page: one file, drawings inside, nothing from the network.

use std::fmt::Write as _;

use super::report::{Report, time};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 24.0;

/// The page of one run, or of several that ran at the same time.
pub(crate) fn render(reports: &[Report]) -> String {
    let names: Vec<&str> = reports.iter().map(|report| report.scenario).collect();
    let body: String = reports.iter().map(section).collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>tidings bench {name}</title>\
         <style>body{{font:15px system-ui;max-width:800px;margin:2em auto;padding:0 1em;color:#222;background:#fff}}\
         pre{{background:#f4f4f2;padding:1em;overflow:auto}}svg{{width:100%;height:auto}}h2{{font-size:1em}}\
         .warning{{color:#a00}}text{{font-size:11px;fill:#555}}</style>{body}</html>\n",
        name = names.join(", "),
    )
}

fn section(report: &Report) -> String {
    let mut body = String::new();
    if !report.latency_classes.is_empty() {
        plot(&mut body, "Latency: deliveries by time", &bars(report));
    }
    let rates =
        report.samples.iter().map(|sample| (sample.at_seconds, sample.deliveries_per_second));
    plot(&mut body, "Throughput: deliveries a second, over seconds", &curve(rates.collect()));
    let busy = report.samples.iter();
    let busy = busy.filter_map(|sample| Some((sample.at_seconds, sample.server_busy? * 100.0)));
    let busy: Vec<(f64, f64)> = busy.collect();
    if !busy.is_empty() {
        plot(&mut body, "Server: % of a core, over seconds", &curve(busy));
    }
    let warnings: String = report
        .failures
        .iter()
        .chain(&report.warnings)
        .map(|line| format!("<p class=\"warning\">{}</p>", escape(line)))
        .collect();
    format!(
        "<h1>tidings bench {name}</h1>{warnings}<pre>{table}</pre>{body}",
        name = report.scenario,
        table = escape(&report.table()),
    )
}

fn plot(body: &mut String, title: &str, drawing: &str) {
    let base = HEIGHT - BOTTOM;
    write!(
        body,
        "<h2>{title}</h2><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\
         <path d=\"M{LEFT} 8V{base}H{WIDTH}\" fill=\"none\" stroke=\"#999\"/>{drawing}</svg>"
    )
    .expect("a string takes everything");
}

fn bars(report: &Report) -> String {
    let first = report.latency_classes.iter().position(|(_, count)| *count > 0).unwrap_or(0);
    let classes = &report.latency_classes[first..];
    let most = classes.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1) as f64;
    let width = (WIDTH - LEFT) / classes.len().max(1) as f64;
    let mut drawing = label(most, 12.0);
    for (index, (until, count)) in classes.iter().enumerate() {
        let height = *count as f64 / most * (HEIGHT - BOTTOM - 8.0);
        let (x, y) = (LEFT + index as f64 * width, HEIGHT - BOTTOM - height);
        write!(
            drawing,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"#2a6f97\">\
             <title>up to {}: {count}</title></rect>",
            (width - 1.0).max(0.5),
            time(*until)
        )
        .expect("a string takes everything");
        if index % classes.len().div_ceil(8) == 0 {
            write!(drawing, "<text x=\"{x:.1}\" y=\"{}\">{}</text>", HEIGHT - 6.0, time(*until))
                .expect("a string takes everything");
        }
    }
    drawing
}

fn curve(points: Vec<(f64, f64)>) -> String {
    let end = points.iter().map(|(at, _)| *at).fold(0.001, f64::max);
    let most = points.iter().map(|(_, value)| *value).fold(0.001, f64::max);
    let mut path = String::new();
    for (at, value) in points {
        let x = LEFT + at / end * (WIDTH - LEFT);
        let y = HEIGHT - BOTTOM - value / most * (HEIGHT - BOTTOM - 12.0);
        let letter = if path.is_empty() { 'M' } else { 'L' };
        write!(path, "{letter}{x:.1} {y:.1}").expect("a string takes everything");
    }
    format!(
        "<path d=\"{path}\" fill=\"none\" stroke=\"#2a6f97\" stroke-width=\"2\"/>{}\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{end:.1} s</text>",
        label(most, 14.0),
        WIDTH - 2.0,
        HEIGHT - 6.0
    )
}

fn label(most: f64, y: f64) -> String {
    format!("<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{most:.0}</text>", LEFT - 6.0)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
