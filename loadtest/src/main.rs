//! `weir-loadtest`: simulated viewers and broadcasters for any LL-HLS server.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    weir_loadtest::cli::main().await
}
