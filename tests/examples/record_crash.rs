//! `cargo run -p weir-tests --example record_crash [kills] [seed]`: kills an origin at that many random moments of a
//! broadcast that it records, and looks at each recording afterwards.

use std::process::Command;

use weir_tests::{
    folder::Folder,
    record_crash::{self, kill_again_and_again},
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if std::env::var(record_crash::FOLDER).is_ok() {
        return record_crash::serve_until_killed().await;
    }
    let mut arguments = std::env::args().skip(1);
    let kills = arguments.next().map_or(Ok(200), |text| text.parse())?;
    let seed = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let folder = Folder::new("record-crash")?;
    let program = std::env::current_exe()?;
    let outcome = kill_again_and_again(|| Command::new(&program), folder.path(), kills, seed).await?;
    println!(
        "{} kills; of {} parts that viewers had seen {} are not recorded (at most one per kill and rendition); \
         {} recordings read by ffprobe without a complaint; {} thumbnails",
        outcome.kills, outcome.seen, outcome.missing, outcome.probed, outcome.thumbnails
    );
    Ok(())
}
