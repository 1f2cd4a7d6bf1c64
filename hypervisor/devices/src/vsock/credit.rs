//! Flow control in both directions (virtio 1.2, 5.10.6.3).
//!
//! The counters are free-running and wrap at 2^32. What is computed from them saturates: a guest that takes back
//! buffer that is in use gets no credit rather than nearly all there is (Linux CVE-2026-23069 is that mistake).

/// The counters of one stream.
#[derive(Debug, Clone)]
pub(super) struct Credit {
    /// How much the guest may have sent that the host has not got yet. Fixed: that much is kept in memory.
    window: u32,
    received: u32,
    forwarded: u32,
    /// `forwarded` as the guest was told last.
    reported: u32,
    sent: u32,
    peer_buffer: u32,
    peer_forwarded: u32,
}

/// The guest sent more than it was allowed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overrun;

impl Credit {
    pub fn new(window: u32) -> Self {
        Self { window, received: 0, forwarded: 0, reported: 0, sent: 0, peer_buffer: 0, peer_forwarded: 0 }
    }

    /// What a packet of the guest says of its own buffer.
    pub fn update_peer(&mut self, buffer: u32, forwarded: u32) {
        self.peer_buffer = buffer;
        self.peer_forwarded = forwarded;
    }

    /// How much may be sent to the guest.
    pub fn peer_free(&self) -> u32 {
        self.peer_buffer.saturating_sub(self.sent.wrapping_sub(self.peer_forwarded))
    }

    /// `count` bytes were sent to the guest.
    pub fn sent(&mut self, count: u32) {
        self.sent = self.sent.wrapping_add(count);
    }

    /// `count` bytes came from the guest.
    pub fn received(&mut self, count: u32) -> Result<(), Overrun> {
        let free = self.window.saturating_sub(self.held());
        if count > free {
            return Err(Overrun);
        }
        self.received = self.received.wrapping_add(count);
        Ok(())
    }

    /// `count` of the received bytes are out of our hands.
    pub fn forwarded(&mut self, count: u32) {
        self.forwarded = self.forwarded.wrapping_add(count.min(self.held()));
    }

    /// Received bytes that are not forwarded.
    pub fn held(&self) -> u32 {
        self.received.wrapping_sub(self.forwarded)
    }

    /// Whether the guest should be told what was forwarded.
    ///
    /// A sender goes by the smaller of our window and its own buffer (Linux since the fix of CVE-2026-23086), so half
    /// of that must not stay untold, or it would wait for ever.
    pub fn report_due(&self) -> bool {
        let untold = self.forwarded.wrapping_sub(self.reported);
        untold > 0 && untold >= self.window.min(self.peer_buffer) / 2
    }

    /// What the next packet to the guest says: our window and what was forwarded.
    pub fn report(&mut self) -> (u32, u32) {
        self.reported = self.forwarded;
        (self.window, self.forwarded)
    }
}

#[cfg(test)]
mod tests;
