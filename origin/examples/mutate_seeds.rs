//! Damages the fuzz seeds of a target by chance and runs the target's checks, many million times.
//!
//! `cargo run --release -p weir-origin --example mutate_seeds -- <target> <executions> [seed]`
//!
//! No replacement for coverage-guided fuzzing (see `fuzz/README.md`), but it needs nothing but a stable toolchain.

#[path = "../../fuzz/ingest.rs"]
mod ingest;
#[path = "../../fuzz/media.rs"]
mod media;
#[path = "../../fuzz/mutate.rs"]
mod mutate;
#[path = "../../fuzz/srt.rs"]
mod srt;
#[path = "../../fuzz/transport.rs"]
mod transport;

use std::{path::Path, time::Instant};

use anyhow::Context as _;
use rand::{SeedableRng as _, rngs::SmallRng};

const USAGE: &str = "usage: mutate_seeds chunk|amf0|session|flv|enhanced|codec|ts|srt EXECUTIONS [SEED]";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (target, executions) = match arguments.as_slice() {
        [target, executions, ..] => (target.as_str(), executions.parse::<u64>().context(USAGE)?),
        _ => anyhow::bail!(USAGE),
    };
    let seed = arguments.get(2).map_or(Ok(1), |seed| seed.parse()).context(USAGE)?;
    let run: fn(&[u8]) -> bool = match target {
        "chunk" => |bytes| ingest::chunk(bytes).is_ok(),
        "amf0" => |bytes| ingest::amf0(bytes).is_ok(),
        "session" => |bytes| ingest::session(bytes).end.is_none(),
        "flv" => |bytes| ingest::flv(bytes).is_ok(),
        "enhanced" => |bytes| media::enhanced(bytes).is_ok(),
        "ts" => |bytes| transport::ts(bytes).is_ok(),
        "srt" => |bytes| srt::srt(bytes).payloads > 0 || srt::key_material(bytes),
        "codec" => |bytes| media::codec(bytes).is_some(),
        _ => anyhow::bail!(USAGE),
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let mut seeds = Vec::new();
    for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
        // Seeds that are long to show a limit would spend the time on their length.
        seeds.extend(std::fs::read(entry?.path()).ok().filter(|seed| seed.len() <= 4096));
    }
    let mut random = SmallRng::seed_from_u64(seed);
    let (began, mut accepted) = (Instant::now(), 0u64);
    for _ in 0..executions {
        accepted += u64::from(run(&mutate::damaged(&seeds, &mut random)));
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{target}: {executions} executions from seed {seed} in {seconds:.0} s, {accepted} accepted, no check failed"
    );
    Ok(())
}
