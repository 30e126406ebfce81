//! Databases for tests: SQLite always, PostgreSQL where it is installed. One server per test binary, in a temporary
//! folder on a free port; each test has a database of its own. The server ends with the test binary.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use sqlx::{Connection as _, Executor as _};
use weir_origin::control::store::Store;

/// Longest wait for PostgreSQL to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Address of a running server, without the database's name. `None`: not installed.
static SERVER: OnceLock<Option<String>> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(1);

/// Addresses of empty databases, one for each engine that is there.
pub async fn urls() -> anyhow::Result<Vec<String>> {
    let mut urls = vec!["sqlite::memory:".to_owned()];
    urls.extend(postgres().await?);
    Ok(urls)
}

/// A store in each database that is there.
pub async fn stores() -> anyhow::Result<Vec<Store>> {
    let mut stores = Vec::new();
    for url in urls().await? {
        stores.push(Store::open(&url).await?);
    }
    Ok(stores)
}

/// The address of an empty PostgreSQL database.
pub async fn postgres() -> anyhow::Result<Option<String>> {
    let server = tokio::task::spawn_blocking(|| {
        SERVER.get_or_init(|| match start() {
            Ok(server) => Some(server),
            Err(error) => {
                eprintln!("SKIPPED: nothing was tested against PostgreSQL: {error:#}");
                None
            }
        })
    })
    .await?;
    let Some(server) = server else { return Ok(None) };
    let name = format!("weir_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut admin = sqlx::PgConnection::connect(&format!("{server}/postgres")).await?;
    admin
        .execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await?;
    admin.close().await?;
    Ok(Some(format!("{server}/{name}")))
}

fn programs() -> anyhow::Result<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .context("PostgreSQL is not installed (Debian: apt-get install postgresql)")?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().context("PostgreSQL is installed without initdb")
}

/// PostgreSQL refuses to run as root: then it runs as the user that its package made.
fn as_user(program: &Path) -> Command {
    let root = std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|text| text.lines().any(|line| line.starts_with("Uid:\t0\t")));
    if !root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"])
        .arg(program);
    command
}

fn start() -> anyhow::Result<String> {
    let bin = programs()?;
    let folder = std::env::temp_dir().join(format!("weir-postgres-{}", std::process::id()));
    let data = folder.join("data");
    std::fs::create_dir_all(&folder)?;
    // The server's user makes the data folder inside.
    std::os::unix::fs::chown(&folder, postgres_id("-u"), postgres_id("-g")).ok();
    let made = as_user(&bin.join("initdb"))
        .args([
            "--username=weir",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
            "-D",
        ])
        .arg(&data)
        .current_dir(&folder)
        .output()?;
    anyhow::ensure!(
        made.status.success(),
        "initdb: {}",
        String::from_utf8_lossy(&made.stderr)
    );

    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    // The shell outlives a killed test: end of file on its input tells it to stop the server and clean up.
    let script = "\"$@\" & server=$!; cat; kill -INT $server; wait $server; rm -rf \"$FOLDER\"";
    let postgres = as_user(&bin.join("postgres"));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script, "sh"])
        .arg(postgres.get_program())
        .args(postgres.get_args())
        .arg("-D")
        .arg(&data)
        .arg("-k")
        .arg(&folder)
        .args([
            "-p",
            &port.to_string(),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "fsync=off",
        ])
        .env("FOLDER", &folder)
        .current_dir(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = shell.spawn()?;
    // Open as long as this process lives.
    std::mem::forget(child.stdin.take());

    let deadline = Instant::now() + PATIENCE;
    loop {
        let ready = Command::new(bin.join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
            .status()?;
        if ready.success() {
            return Ok(format!("postgres://weir@127.0.0.1:{port}"));
        }
        anyhow::ensure!(child.try_wait()?.is_none(), "the server ended at once");
        anyhow::ensure!(Instant::now() < deadline, "the server did not answer in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn postgres_id(what: &str) -> Option<u32> {
    let told = Command::new("id").args([what, "postgres"]).output().ok()?;
    String::from_utf8(told.stdout).ok()?.trim().parse().ok()
}
