//! What the system tells of processes: CPU and memory by pid, and how many files may be open.

use std::{fs, io};

/// CPU time and memory of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
}

/// Of a process and its children that are still alive (nginx and Varnish work in those).
pub fn usage(pid: u32) -> io::Result<Usage> {
    let mut total = Usage::default();
    add(pid, &mut total, 0)?;
    Ok(total)
}

/// Of this process.
pub fn own_usage() -> Usage {
    usage(std::process::id()).unwrap_or_default()
}

/// Generations of children that are counted.
const MAX_DEPTH: u32 = 4;

fn add(pid: u32, total: &mut Usage, depth: u32) -> io::Result<()> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let field = |n: usize| fields.get(n).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
    total.cpu_seconds += (field(11) + field(12)) as f64 / ticks;
    total.resident_bytes += field(21) * rustix::param::page_size() as u64;
    if depth < MAX_DEPTH {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|text| text.parse().ok()) {
            // It may be gone already.
            let _ = add(child, total, depth + 1);
        }
    }
    Ok(())
}

/// Fewer files may be open than the viewers need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{needed} files must be open at once and the system allows this process {allowed}: raise the hard limit \
     (`ulimit -Hn {needed}` as root, or LimitNOFILE= in systemd), or take fewer viewers per process and merge the results"
)]
pub struct TooFewFiles {
    pub needed: u64,
    pub allowed: u64,
}

/// Raises the soft limit of open files to what is needed.
pub fn allow_files(needed: u64) -> Result<(), TooFewFiles> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|soft| soft >= needed) {
        return Ok(());
    }
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit {
        current: Some(needed.min(hard)),
        maximum: limit.maximum,
    };
    let set = setrlimit(Resource::Nofile, raised);
    match set {
        Ok(()) if hard >= needed => Ok(()),
        _ => Err(TooFewFiles { needed, allowed: hard }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_nobody_has_no_pid() {
        assert!(own_usage().resident_bytes > 1 << 20);
        assert!(usage(u32::MAX).is_err());
    }

    #[test]
    fn more_files_than_any_system_allows_are_refused_with_a_remedy() {
        assert_eq!(allow_files(64), Ok(()));
        if let Err(error) = allow_files(1 << 40) {
            assert!(error.to_string().contains("ulimit"));
        }
    }
}
