//! `weir-loadtest`: simulated viewers and broadcasters for any LL-HLS server.

use std::process::ExitCode;

/// Thousands of viewers on one core: what the harness spends itself, the server can't be measured with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    weir_loadtest::cli::main().await
}
