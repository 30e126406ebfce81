//! What this process takes of the machine's memory.

/// Resident bytes, as Linux counts them (proc(5), `statm`, second field, in pages). `None` elsewhere.
pub fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_used_is_seen() {
        let before = resident().unwrap();
        let used = vec![1u8; 32 << 20];
        let after = resident().unwrap();
        assert!(after >= before + (24 << 20), "{before} {after} {}", used.len());
    }
}
