//! Threads of their own for what all viewers wait for: following, fetching, the directory.
//!
//! Answering a crowd with one part keeps a processor busy for a tenth of a second and longer. Among the same tasks, the next playlist and
//! the next part would wait for their turn behind thousands of viewers, at each step of their way; the system gives a
//! thread that seldom wants the processor its time at once.
//!
//! Before this: `app.rs`. After this: whoever is made in their context, and asks for `Handle::current()`.

use std::{io, sync::Arc};

use tokio::runtime::{Builder, EnterGuard, Runtime};

/// Shared by all generations of an edge; clones are the same.
#[derive(Debug, Clone)]
pub struct Threads(Arc<Running>);

/// There until dropped.
#[derive(Debug)]
struct Running(Option<Runtime>);

impl Threads {
    /// As many as there are processors.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .thread_name("upstream")
            .enable_all()
            .build()?;
        Ok(Self(Arc::new(Running(Some(runtime)))))
    }

    /// What is made while the guard lives does its work in the background on these threads.
    pub fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.0.as_ref().map(Runtime::enter)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // The last user may be one of their own tasks, which can't wait for its own end.
            runtime.shutdown_background();
        }
    }
}
