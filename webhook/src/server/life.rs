//! From serving over draining to the end.

use std::sync::Arc;
use tokio::sync::watch;

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Business as usual.
    Serving,
    /// Still serving everybody, and asking each caller to come back elsewhere.
    Draining,
    /// Finishing what has begun.
    Stopping,
}

/// The phase of a process, shared by all that must know.
#[derive(Debug, Clone)]
pub struct Life(Arc<watch::Sender<Phase>>);

impl Default for Life {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Phase::Serving)))
    }
}

impl Life {
    /// The phase.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Enters another phase.
    pub fn enter(&self, phase: Phase) {
        self.0.send_replace(phase);
    }

    pub(super) fn follow(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }

    pub(super) async fn stopping(&self) {
        // The sender lives as long as this does.
        let _ = self.follow().wait_for(|phase| *phase == Phase::Stopping).await;
    }
}
