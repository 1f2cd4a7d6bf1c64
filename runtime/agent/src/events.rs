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
    events: Mutex<Events>,
    added: Notify,
}

#[derive(Debug, Default)]
struct Events {
    waiting: VecDeque<ContainerId>,
    closed: bool,
}

impl OomQueue {
    /// Adds an event.
    pub fn add(&self, id: &ContainerId) {
        let mut events = lock(&self.events);
        if events.waiting.len() == MAX_EVENTS {
            events.waiting.pop_front();
        }
        events.waiting.push_back(id.clone());
        drop(events);
        self.added.notify_one();
    }

    /// There will be no more events: nobody shall wait for one.
    pub fn close(&self) {
        lock(&self.events).closed = true;
        self.added.notify_one();
    }

    /// Waits for the next event; none when there will be no more.
    pub async fn next(&self) -> Option<ContainerId> {
        loop {
            let added = self.added.notified();
            let (next, closed) = {
                let mut events = lock(&self.events);
                (events.waiting.pop_front(), events.closed)
            };
            if next.is_some() || closed {
                // There may be more, for another that waits.
                self.added.notify_one();
                return next;
            }
            added.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_events_are_told_and_the_end_to_all_that_wait() {
        let queue = std::sync::Arc::new(OomQueue::default());
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let queue = std::sync::Arc::clone(&queue);
                tokio::spawn(async move { queue.next().await })
            })
            .collect();
        queue.add(&ContainerId::parse("a").unwrap());
        queue.close();
        let mut told = Vec::new();
        for one in waiting {
            told.extend(one.await.unwrap());
        }
        assert_eq!(told, [ContainerId::parse("a").unwrap()]);
    }
}
