//! A recording survives `kill -9`, and lacks at most what was never acknowledged.

use std::process::Command;

use weir_tests::{
    folder::Folder,
    record_crash::{self, kill_again_and_again},
};

/// Not a test: what the test below starts and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the other test"]
async fn the_origin_that_is_killed() -> anyhow::Result<()> {
    match std::env::var(record_crash::FOLDER) {
        Ok(_) => record_crash::serve_until_killed().await,
        Err(_) => Ok(()),
    }
}

fn this_program() -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["--exact", "the_origin_that_is_killed", "--ignored", "--nocapture"]);
    command
}

#[tokio::test]
async fn a_recording_plays_whenever_its_origin_was_killed() -> anyhow::Result<()> {
    let folder = Folder::new("recording-crash")?;
    let outcome = kill_again_and_again(this_program, folder.path(), 3, 7).await?;
    println!("{outcome:?}");
    assert_eq!(outcome.kills, 3);
    assert!(outcome.seen > 6, "there was something to lose: {outcome:?}");
    // Two renditions, of each at most the part that was being written.
    assert!(outcome.missing <= 6, "{outcome:?}");
    Ok(())
}
