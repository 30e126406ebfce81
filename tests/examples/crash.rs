//! `cargo run -p weir-tests --example crash [kills] [seed] [database]`: kills an origin at that many random moments of
//! API traffic and webhook delivery, and looks for every acknowledged write and its event afterwards. Default: a SQLite
//! file.

use std::process::Command;

use weir_tests::crash::{self, kill_again_and_again};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if std::env::var(crash::DATABASE).is_ok() {
        return crash::serve_until_killed().await;
    }
    let mut arguments = std::env::args().skip(1);
    let kills = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let seed = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let folder = std::env::temp_dir().join(format!("weir-crash-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let program = std::env::current_exe()?;
    let file = format!("sqlite:{}", folder.join("weir.db").display());
    let database = arguments.next().unwrap_or(file);
    let outcome = kill_again_and_again(|| Command::new(&program), &database, kills, seed).await?;
    println!(
        "{} kills, {} acknowledged writes, all of them there; {} events, all of them delivered ({} deliveries)",
        outcome.kills, outcome.acknowledged, outcome.events, outcome.deliveries
    );
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
