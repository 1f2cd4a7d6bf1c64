//! The bytes of a guest's memory.

use nacre_stage0_abi::layout;

use crate::error::Error;
use crate::launch::{HIGH, LOW};
use crate::unsafe_memory::Backing;

const PAGE: usize = 4096;

/// All there is.
pub struct Memory {
    pub low: Backing,
    pub high: Backing,
    pub image: Backing,
    pub window: Backing,
}

impl Memory {
    pub fn new(image: usize, window: usize) -> Result<Self, Error> {
        let pages = |len: u64| usize::try_from(len).unwrap_or(0) / PAGE;
        Ok(Self {
            low: Backing::new(pages(LOW))?,
            high: Backing::new(pages(HIGH.1))?,
            image: Backing::new(image / PAGE)?,
            window: Backing::new(window / PAGE)?,
        })
    }

    /// Where the image begins.
    pub fn image_start(&self) -> u64 {
        layout::IMAGE_END - self.image.len() as u64
    }

    pub fn place_image(&mut self, image: &[u8]) -> Result<(), Error> {
        self.image.set_open(0, image.len() / PAGE, true)?;
        self.image.write(0, image).ok_or_else(|| Error::Image("has no place".into()))
    }

    /// Fills the window. It stays open only where nothing is to be told about reading it.
    pub fn place_window(&mut self, bytes: &[u8], open: bool) -> Result<(), Error> {
        self.window.set_open(0, bytes.len() / PAGE, true)?;
        self.window.write(0, bytes).ok_or_else(|| Error::Pages("window".into()))?;
        if open { Ok(()) } else { self.window.set_open(0, bytes.len() / PAGE, false) }
    }

    /// Closes the window's page before this one, with other bytes in it, and opens this one. `false` if there is none.
    pub fn turn_window(&mut self, page: usize) -> Result<bool, Error> {
        if let Some(before) = page.checked_sub(1)
            && before * PAGE < self.window.len()
        {
            let changed = self.window.write(before * PAGE, &[0xee; PAGE]);
            changed.ok_or_else(|| Error::Pages("the window's page was closed".into()))?;
            self.window.set_open(before, 1, false)?;
        }
        if page * PAGE >= self.window.len() {
            return Ok(false);
        }
        self.window.set_open(page, 1, true)?;
        Ok(true)
    }

    /// Opens private memory and fills it. Memory beyond what there are bytes for is only counted.
    pub fn open(&mut self, start: u64, end: u64, filling: u8) -> Result<(), Error> {
        let len = usize::try_from(end - start).unwrap_or(0);
        let Some((backing, offset)) = self.find(start, len) else { return Ok(()) };
        backing.set_open(offset / PAGE, len / PAGE, true)?;
        backing.write(offset, &vec![filling; len]).ok_or_else(|| Error::Pages("closed".into()))
    }

    /// Closes a page, which keeps its bytes.
    pub fn close(&mut self, page: u64) -> Result<(), Error> {
        self.set_open(page, false)
    }

    /// Opens it again.
    pub fn reopen(&mut self, page: u64) -> Result<(), Error> {
        self.set_open(page, true)
    }

    fn set_open(&mut self, page: u64, open: bool) -> Result<(), Error> {
        let found = self.find(page, PAGE);
        let (backing, offset) = found.ok_or_else(|| Error::Pages(format!("nothing at {page:#x}")))?;
        backing.set_open(offset / PAGE, 1, open)
    }

    pub fn write(&mut self, gpa: u64, bytes: &[u8]) -> Option<()> {
        let (backing, offset) = self.find(gpa, bytes.len())?;
        backing.write(offset, bytes)
    }

    pub fn read(&mut self, gpa: u64, len: usize) -> Option<Vec<u8>> {
        let (backing, offset) = self.find(gpa, len)?;
        backing.read(offset, len)
    }

    /// Whether there are bytes for this address, in use or not.
    pub fn has(&mut self, gpa: u64) -> bool {
        self.find(gpa, 1).is_some()
    }

    fn find(&mut self, gpa: u64, len: usize) -> Option<(&mut Backing, usize)> {
        let image = self.image_start();
        let all = [(0, &mut self.low), (HIGH.0, &mut self.high), (image, &mut self.image)];
        all.into_iter().find_map(|(start, backing)| {
            let offset = usize::try_from(gpa.checked_sub(start)?).ok()?;
            (offset.checked_add(len)? <= backing.len()).then_some((backing, offset))
        })
    }
}
