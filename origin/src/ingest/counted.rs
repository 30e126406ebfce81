//! How many of something there are now, right even after a panic.

/// Raises a gauge, and lowers it when dropped, on a panic too.
pub(super) struct Counted(prometheus::IntGauge);

impl Counted {
    pub(super) fn new(gauge: &prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
