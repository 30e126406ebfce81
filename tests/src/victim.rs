//! A process that is to be killed: an origin of its own, which says where it listens.
//!
//! Before this: [`crate::crash`], [`crate::record_crash`].

use std::{
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;

/// What begins the line by which a process says that it is ready.
const READY: &str = "ready ";

/// Says, from within the process, what whoever started it has to know. A line of its own: test runners write before it.
pub fn say_ready(words: &[String]) {
    println!("\n{READY}{}", words.join(" "));
}

/// A running process.
pub struct Victim {
    child: Child,
    said: Vec<String>,
}

/// A killed child is waited for, whatever else goes wrong.
impl Drop for Victim {
    fn drop(&mut self) {
        // Fails only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Victim {
    /// Starts a process that calls [`say_ready`], and waits for that.
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let out = child.stdout.take().context("its output")?;
        let mut victim = Self {
            child,
            said: Vec::new(),
        };
        for line in BufReader::new(out).lines() {
            if let Some(words) = line?.strip_prefix(READY) {
                victim.said = words.split(' ').map(str::to_owned).collect();
                return Ok(victim);
            }
        }
        anyhow::bail!("the origin ended before it was ready")
    }

    /// One of the words it said.
    pub fn word(&self, index: usize) -> anyhow::Result<&str> {
        let word = self.said.get(index).map(String::as_str);
        word.with_context(|| format!("it said only {:?}", self.said))
    }

    /// An address whose port it said.
    pub fn address(&self, index: usize) -> anyhow::Result<SocketAddr> {
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, self.word(index)?.parse()?)))
    }

    /// `kill -9`, here and now.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}
