//! Logging for binaries: to standard error, so that standard output stays for what was asked for.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Anybody who speaks HTTP/2 can have this library say a line for each stream he takes back.
const NEVER: &str = "h2=error";

/// Starts logging. `WEIR_LOG` sets the level (`debug`, `weir_edge=trace`); `json` writes one object per line.
pub fn init(json: bool) {
    let filter = filter(std::env::var("WEIR_LOG").ok().as_deref());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second call (a test's, say) keeps the first one's settings.
    let _ = if json {
        builder.json().try_init()
    } else {
        builder.try_init()
    };
}

/// What is asked for, or `info`; floods only by their name (`h2=warn`).
fn filter(asked: Option<&str>) -> EnvFilter {
    let asked = asked.and_then(|asked| EnvFilter::try_new(format!("{NEVER},{asked}")).ok());
    asked.unwrap_or_else(|| EnvFilter::new(format!("{NEVER},info")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_do_not_write_the_log() {
        for (asked, said) in [
            (None, "h2=error,info"),
            (Some("debug"), "h2=error,debug"),
            (Some("no=such=thing"), "h2=error,info"),
            (Some("h2=trace,warn"), "h2=trace,warn"),
        ] {
            assert_eq!(filter(asked).to_string(), said, "{asked:?}");
        }
    }
}
