//! Events that a peer asks for.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::Notify;

use crate::id::ContainerId;
use crate::lock::lock;

/// A peer that never asks must not make the agent grow.
const MAX_EVENTS: usize = 1024;

/// Containers in which the kernel has killed a process for want of memory.
#[derive(Debug, Default)]
pub struct OomQueue {
    events: Mutex<VecDeque<ContainerId>>,
    added: Notify,
}

impl OomQueue {
    /// Adds an event.
    pub fn add(&self, id: &ContainerId) {
        let mut events = lock(&self.events);
        if events.len() == MAX_EVENTS {
            events.pop_front();
        }
        events.push_back(id.clone());
        drop(events);
        self.added.notify_one();
    }

    /// Waits for the next event.
    pub async fn next(&self) -> ContainerId {
        loop {
            let added = self.added.notified();
            if let Some(id) = lock(&self.events).pop_front() {
                // There may be more, for another that waits.
                self.added.notify_one();
                return id;
            }
            added.await;
        }
    }
}
