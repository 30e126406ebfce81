//! An acknowledged write survives `kill -9`, and so does the event that tells of it.

use std::process::Command;

use weir_tests::{
    crash::{self, kill_again_and_again},
    database,
};

/// Not a test: what the test below starts and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the other test"]
async fn the_origin_that_is_killed() -> anyhow::Result<()> {
    match std::env::var(crash::DATABASE) {
        Ok(_) => crash::serve_until_killed().await,
        Err(_) => Ok(()),
    }
}

fn this_program() -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["--exact", "the_origin_that_is_killed", "--ignored", "--nocapture"]);
    command
}

#[tokio::test]
async fn every_acknowledged_write_survives_a_kill_at_any_moment() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("weir-crash-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let sqlite = format!("sqlite:{}", folder.join("weir.db").display());
    for (url, kills) in [(Some(sqlite), 5), (database::postgres().await?, 2)] {
        let Some(url) = url else { continue };
        let outcome = kill_again_and_again(this_program, &url, kills, 7).await?;
        println!("{outcome:?}");
        assert!(outcome.acknowledged > 20, "there was traffic: {outcome:?}");
        assert!(outcome.deliveries >= outcome.events, "{outcome:?}");
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
