//! What the processor, its firmware and the host know of a guest's memory.

mod memory;
mod snp;
mod tdx;

use std::collections::BTreeMap;

use crate::error::Error;
use crate::launch::Launch;
pub use memory::Memory;
pub use tdx::{Called, extended};

/// What a guest's memory is protected by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Technology {
    Plain,
    Snp,
    Tdx,
}

/// How an attempt to take a page into use ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// It is in use already: PVALIDATE's carry, TDX's PAGE_ALREADY_ACCEPTED.
    Already,
    OtherSize,
    Refused,
}

/// A host's lie about a page.
pub type Lie = fn(page: u64, large: bool) -> Option<Answer>;

/// The state of a guest's memory.
pub struct Model {
    pub technology: Technology,
    pub memory: Memory,
    /// Pages in use: start, and end with how often stage0 took them; launched ones zero times.
    pub in_use: BTreeMap<u64, (u64, u32)>,
    pub map: Vec<(u64, u64)>,
    /// The host has memory in large pages.
    pub large_pages: bool,
    pub lie: Option<Lie>,
    /// The window's page that the guest may read now; those before were read and changed since.
    pub window_page: usize,
    pub window_changes: bool,
    /// TDX's runtime measurement registers.
    pub registers: [[u8; 48]; 4],
    pub refuses_extension: bool,
    /// How many pages each CPU took.
    pub taken: BTreeMap<u32, u64>,
    /// Pages that stay closed when they are taken, until the guest touches them: it must do so before the next page.
    pub must_touch: Vec<u64>,
    untouched: Option<u64>,
    /// What the GHCB's MSR holds.
    pub ghcb: u64,
    pub sev_status: u64,
    /// The width of a TDX guest's addresses.
    pub width: u32,
}

impl Model {
    /// The guest as it is launched.
    pub fn new(launch: &Launch, image: &[u8], bit: u32) -> Result<Self, Error> {
        let mut model = Self {
            technology: launch.technology,
            memory: Memory::new(image.len(), launch.window.len())?,
            in_use: BTreeMap::new(),
            map: launch.memory.clone(),
            // Few exits; the cases that are about small pages say so.
            large_pages: true,
            lie: None,
            window_page: 0,
            window_changes: launch.technology != Technology::Plain,
            registers: [[0; 48]; 4],
            refuses_extension: false,
            taken: BTreeMap::new(),
            must_touch: Vec::new(),
            untouched: None,
            ghcb: 0,
            sev_status: 0b111,
            width: bit + 1,
        };
        model.memory.place_image(image)?;
        model.memory.place_window(&launch.window, !model.window_changes)?;
        if launch.technology == Technology::Plain {
            for (start, len) in launch.memory.clone() {
                model.use_range(start, start + len, 0, 0xa5)?;
            }
        }
        for (gpa, bytes) in launch.pages() {
            model.add_page(gpa, &bytes)?;
        }
        Ok(model)
    }

    /// Adds a page before the first instruction.
    pub fn add_page(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), Error> {
        if self.technology != Technology::Plain {
            self.use_range(gpa, gpa + 4096, 0, 0)?;
        }
        self.memory.write(gpa, bytes).ok_or_else(|| Error::Pages(format!("nothing at {gpa:#x}")))
    }

    /// A CPU takes a page into use.
    pub fn take(&mut self, cpu: u32, page: u64, large: bool) -> Result<Answer, String> {
        let len = if large { 2 << 20 } else { 4096 };
        if let Some(before) = self.untouched {
            return Err(format!("took {before:#x} into use and did not read it"));
        }
        if !page.is_multiple_of(len) {
            return Err(format!("takes {len:#x} bytes at {page:#x} into use"));
        }
        if let Some(answer) = self.lie.and_then(|lie| lie(page, large)) {
            return Ok(answer);
        }
        let end = page + len;
        if !self.map.iter().any(|(start, len)| *start <= page && end <= start + len) {
            return Err(format!("takes {page:#x} into use, which is no memory"));
        }
        if large && !self.large_pages {
            return Ok(Answer::OtherSize);
        }
        if self.in_use.range(..end).next_back().is_some_and(|(_, (used, _))| *used > page) {
            return Ok(Answer::Already);
        }
        // What decrypting somebody else's bytes gives; a TDX module clears the page.
        let filling = if self.technology == Technology::Snp { 0xa5 } else { 0 };
        self.use_range(page, end, 1, filling).map_err(|error| error.chain())?;
        if self.must_touch.contains(&page) {
            self.untouched = Some(page);
            self.memory.close(page).map_err(|error| error.chain())?;
        }
        *self.taken.entry(cpu).or_default() += len / 4096;
        Ok(Answer::Done)
    }

    /// The guest touched something that is closed. If it can be the window's next page, that page is opened, and the
    /// one before is closed and changed: a host that changes what was read.
    pub fn open_next(&mut self) -> Result<bool, Error> {
        if let Some(page) = self.untouched.take() {
            self.memory.reopen(page)?;
            return Ok(true);
        }
        if !self.window_changes {
            return Ok(false);
        }
        let next = self.window_page;
        self.window_page += 1;
        self.memory.turn_window(next)
    }

    fn use_range(&mut self, start: u64, end: u64, count: u32, filling: u8) -> Result<(), Error> {
        self.in_use.insert(start, (end, count));
        self.memory.open(start, end, filling)
    }
}
