//! `check-metrics`: what a monitoring system would complain about.

use std::collections::BTreeMap;

use url::Url;

use crate::scrape;

/// Endings that say the unit or the kind.
const UNITS: [&str; 8] = [
    "_seconds", "_bytes", "_total", "_ratio", "_info", "_bucket", "_sum", "_count",
];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Metrics pages.
    #[arg(required = true)]
    urls: Vec<Url>,
    /// Most series of one page.
    #[arg(long, default_value_t = 2000)]
    max_series: usize,
}

pub(super) async fn main(args: Args) -> anyhow::Result<bool> {
    let mut clean = true;
    for url in &args.urls {
        let text = scrape::page(url).await?;
        let (series, complaints) = complaints(&text, args.max_series);
        println!("{url}: {series} series, {} complaints", complaints.len());
        for complaint in &complaints {
            println!("  {complaint}");
        }
        clean &= complaints.is_empty();
    }
    Ok(clean)
}

/// Number of series, and what is wrong with the page.
fn complaints(text: &str, max_series: usize) -> (usize, Vec<String>) {
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helped: BTreeMap<&str, &str> = BTreeMap::new();
    let mut found = Vec::new();
    let mut series = 0;
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            helped.insert(name, help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kinds.insert(name, kind);
        } else if !line.starts_with('#') && !line.is_empty() {
            series += 1;
        }
    }
    for (name, kind) in &kinds {
        if helped.get(name).is_none_or(|help| help.trim().is_empty()) {
            found.push(format!("{name} has no help text"));
        }
        match *kind {
            "counter" if !name.ends_with("_total") => {
                found.push(format!("{name} is a counter and does not end in _total"))
            }
            "gauge" | "histogram" | "summary" if name.ends_with("_total") => {
                found.push(format!("{name} ends in _total and is no counter"));
            }
            "histogram" if !UNITS.iter().any(|unit| name.ends_with(unit)) => found.push(format!("{name} has no unit")),
            _ => {}
        }
        if ["_ms", "_milliseconds", "_minutes", "_kilobytes", "_megabytes"]
            .iter()
            .any(|unit| name.contains(unit))
        {
            found.push(format!("{name} is not in base units"));
        }
    }
    if series > max_series {
        found.push(format!("{series} series: more than {max_series}"));
    }
    (series, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_page_is_told_what_is_wrong() {
        let good = "# HELP a_total x\n# TYPE a_total counter\na_total 1\n";
        assert_eq!(complaints(good, 10), (1, vec![]));
        let bad = "# TYPE b counter\nb 1\n# HELP c_ms x\n# TYPE c_ms gauge\nc_ms 1\n";
        let (series, found) = complaints(bad, 1);
        assert_eq!(series, 2);
        assert_eq!(found.len(), 4, "{found:?}");
    }
}
