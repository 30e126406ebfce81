//! One HTML file with plots: opens from disk, asks for nothing from anywhere.

use std::{fmt::Write as _, time::Duration};

use super::{Row, Run, comparison, ms};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 12.0;
/// Told apart by people who see few colours, too.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1220px;padding:0 1rem;color:#1c2330;background:#fff}\
h1{font-size:1.5rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
td,th{border-bottom:1px solid #d8dde6;padding:.3rem .6rem;text-align:right}td:first-child,th:first-child{text-align:left}\
figure{margin:0}figcaption{font-weight:600;margin:.4rem 0}.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(480px,1fr));gap:1.2rem}\
svg{width:100%;height:auto;background:#f7f9fc;border-radius:6px}svg text{font:11px system-ui,sans-serif;fill:#4a5568}\
.bad{color:#a4000f}.good{color:#00693e}.lapse{color:#7a5a00}pre{background:#f7f9fc;padding:1rem;border-radius:6px;overflow:auto}";

struct Line {
    name: String,
    colour: &'static str,
    /// Drawn with gaps: the second value of a run.
    dashed: bool,
    points: Vec<(f64, f64)>,
}

/// The whole page for one run or several.
pub fn page(title: &str, runs: &[Run]) -> String {
    let mut out = String::new();
    let title = escape(title);
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
    );
    table(&mut out, runs);
    verdicts(&mut out, runs);
    out.push_str("<div class=\"plots\">");
    over_time(
        &mut out,
        "Part latency, ms",
        runs,
        &[("p50", |r| r.latency_p50_ms), ("p99", |r| r.latency_p99_ms)],
    );
    cdf(&mut out, runs);
    over_time(&mut out, "Viewers", runs, &[("", |r| r.watching as f64)]);
    over_time(
        &mut out,
        "Throughput, Mbit/s",
        runs,
        &[("", |r| r.bytes as f64 * 8.0 / 1e6)],
    );
    over_time(
        &mut out,
        "Errors and stalls a second",
        runs,
        &[("errors", |r| r.errors as f64), ("stalls", |r| r.stalls as f64)],
    );
    out.push_str("</div>");
    for run in runs {
        let _ = write!(out, "<h2>{}</h2><pre>{}</pre>", escape(&run.name), escape(&run.table()));
    }
    out.push_str("</html>\n");
    out
}

/// The comparison's Markdown rows as a table.
fn table(out: &mut String, runs: &[Run]) {
    out.push_str("<table>");
    for (index, line) in comparison(runs).lines().enumerate().filter(|(index, _)| *index != 1) {
        let cell = if index == 0 { "th" } else { "td" };
        out.push_str("<tr>");
        for text in line.trim_matches('|').split('|') {
            let _ = write!(out, "<{cell}>{}</{cell}>", escape(text.trim()));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table>");
}

fn verdicts(out: &mut String, runs: &[Run]) {
    out.push_str("<p>");
    for run in runs {
        let name = escape(&run.name);
        if run.total.broken.is_empty() {
            let _ = write!(out, "<span class=\"good\">{name}: every rule kept.</span> ");
        }
        for (rule, broken) in &run.total.broken {
            let class = if rule.is_must() { "bad" } else { "lapse" };
            let rule = escape(&rule.to_string());
            let _ = write!(
                out,
                "<span class=\"{class}\">{name}: {} × {rule}.</span> ",
                broken.count
            );
        }
    }
    out.push_str("</p>");
}

type Value = fn(&Row) -> f64;

fn over_time(out: &mut String, caption: &str, runs: &[Run], values: &[(&str, Value)]) {
    let mut lines = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        for (nth, (name, value)) in values.iter().enumerate() {
            let points = run.rows.iter().map(|row| (f64::from(row.second), value(row))).collect();
            let name = match (runs.len(), *name) {
                (1, name) => name.to_owned(),
                (_, "") => run.name.clone(),
                (_, name) => format!("{} {name}", run.name),
            };
            lines.push(Line {
                name,
                colour: colour(if runs.len() == 1 { nth } else { index }),
                dashed: nth > 0,
                points,
            });
        }
    }
    chart(out, caption, "s", &lines, &|x| format!("{x:.0}"), &|x| x);
}

/// How much came within which time; the time axis is logarithmic.
fn cdf(out: &mut String, runs: &[Run]) {
    let lines: Vec<_> = runs
        .iter()
        .enumerate()
        .map(|(index, run)| {
            let limits: Vec<_> = (0..=100)
                .map(|n| Duration::from_secs_f64(0.0001 * 10f64.powf(f64::from(n) * 0.05)))
                .collect();
            let total = run.total.latency.count().max(1) as f64;
            let counts = run.total.latency.cumulative(&limits);
            let share = |count: &u64| 100.0 * *count as f64 / total;
            let all: Vec<_> = limits
                .iter()
                .map(|limit| ms(*limit))
                .zip(counts.iter().map(share))
                .collect();
            let from = all.iter().rposition(|(_, share)| *share <= 0.0).unwrap_or(0);
            let to = all.iter().position(|(_, share)| *share >= 100.0).unwrap_or(all.len());
            let points = all.get(from..(to + 1).min(all.len())).unwrap_or(&[]).to_vec();
            Line {
                name: run.name.clone(),
                colour: colour(index),
                dashed: false,
                points,
            }
        })
        .collect();
    let label = |x: f64| {
        let ms = 10f64.powf(x);
        if ms < 10.0 {
            format!("{ms:.1}")
        } else {
            format!("{ms:.0}")
        }
    };
    chart(out, "Parts within this latency, %", "ms", &lines, &label, &f64::log10);
}

fn chart(
    out: &mut String,
    caption: &str,
    unit: &str,
    lines: &[Line],
    label: &dyn Fn(f64) -> String,
    scale: &dyn Fn(f64) -> f64,
) {
    let all = || lines.iter().flat_map(|line| &line.points);
    let (mut low, mut high, mut top) = (f64::INFINITY, f64::NEG_INFINITY, 0.0f64);
    for (x, y) in all() {
        low = low.min(scale(*x));
        high = high.max(scale(*x));
        top = top.max(*y);
    }
    if !low.is_finite() || high <= low {
        (low, high) = (0.0, 1.0);
    }
    let top = nice(top);
    let at = |x: f64, y: f64| {
        let x = LEFT + (scale(x) - low) / (high - low) * (WIDTH - LEFT - 12.0);
        (x, HEIGHT - BOTTOM - y / top * (HEIGHT - BOTTOM - TOP))
    };
    let caption = escape(caption);
    let _ = write!(
        out,
        "<figure><figcaption>{caption}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{caption}\">"
    );
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let y = HEIGHT - BOTTOM - f64::from(step) / 4.0 * (HEIGHT - BOTTOM - TOP);
        let text = if top < 8.0 {
            format!("{value:.2}")
        } else {
            format!("{value:.0}")
        };
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#dfe5ee\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            LEFT - 6.0,
            y + 4.0
        );
        let x = low + (high - low) * f64::from(step) / 4.0;
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{} {unit}</text>",
            LEFT + f64::from(step) / 4.0 * (WIDTH - LEFT - 30.0),
            HEIGHT - 8.0,
            label(x)
        );
    }
    for (index, line) in lines.iter().enumerate() {
        let mut path = String::new();
        for (x, y) in &line.points {
            let (x, y) = at(*x, *y);
            let _ = write!(path, "{x:.1},{y:.1} ");
        }
        let _ = write!(
            out,
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"{}/>",
            line.colour,
            if line.dashed { " stroke-dasharray=\"5 4\"" } else { "" }
        );
        if !line.name.is_empty() {
            let y = TOP + 14.0 * (index as f64 + 1.0);
            let _ = write!(
                out,
                "<circle cx=\"{}\" cy=\"{}\" r=\"4\" fill=\"{}\"/><text x=\"{}\" y=\"{}\">{}</text>",
                LEFT + 12.0,
                y - 4.0,
                line.colour,
                LEFT + 22.0,
                y,
                escape(&line.name)
            );
        }
    }
    out.push_str("</svg></figure>");
}

fn colour(index: usize) -> &'static str {
    COLOURS.get(index % COLOURS.len()).copied().unwrap_or("#000")
}

/// The next round number for the top of an axis.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let magnitude = 10f64.powf(value.log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 5.0, 6.0, 8.0, 10.0];
    let step = steps.into_iter().find(|step| step * magnitude >= value).unwrap_or(10.0);
    step * magnitude
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
