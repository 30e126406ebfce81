//! Logging for binaries: to standard error, so that standard output stays for what was asked for.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging. `WEIR_LOG` sets the level (`debug`, `weir_edge=trace`); `json` writes one object per line.
pub fn init(json: bool) {
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
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
