//! The other CPUs of a TDX guest, which are in the entry's assembly until they are let go on.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use nacre_stage0::{PageSize, Platform, Validate, Validation, Work};
use nacre_stage0_abi::entry;

// The words at the end of entry.s, in stage0's image, which is private memory.
unsafe extern "C" {
    static stage0_tag: AtomicU32;
    static stage0_released: AtomicU32;
    static stage0_open: AtomicU32;
    static stage0_helping: AtomicU32;
    static stage0_cpus: AtomicU32;
    /// Of a [`Work`].
    static stage0_work: AtomicPtr<u8>;
}

/// A CPU that takes pages into use and can do nothing else.
struct Helper;

impl Validate for Helper {
    fn validate(&mut self, page: u64, size: PageSize) -> Validation {
        super::tdx::accept(page, size)
    }
}

/// The machine that the entry was told.
pub fn platform() -> Platform {
    // SAFETY: the word is there and nobody writes to it any more.
    match unsafe { stage0_tag.load(Ordering::Relaxed) } {
        entry::TAG_TDX => Platform::Tdx,
        entry::TAG_SNP => Platform::Snp,
        _ => Platform::Plain,
    }
}

/// Does the work on this CPU and on the others, of which there are `cpus` with this one. Returns when no other CPU
/// touches the work or its stack any more.
pub fn together(work: &Work<'_>, cpus: u32, this: &mut impl Validate) {
    // SAFETY: the words are there. The others use the work between opening and closing only, and it lives as long:
    // they are counted before they look whether it is open, and all of these accesses are in one order.
    unsafe {
        stage0_work.store(core::ptr::from_ref(work).cast_mut().cast(), Ordering::SeqCst);
        stage0_cpus.store(cpus, Ordering::SeqCst);
        stage0_open.store(1, Ordering::SeqCst);
        stage0_released.store(1, Ordering::SeqCst);
        work.take_part(this);
        stage0_open.store(0, Ordering::SeqCst);
        while stage0_helping.load(Ordering::SeqCst) != 0 {
            spin_loop();
        }
    }
}

/// What the entry calls on another CPU.
#[unsafe(no_mangle)]
extern "C" fn help() {
    // SAFETY: the entry calls this only while the work is open, and counted this CPU before it looked.
    let work = unsafe { stage0_work.load(Ordering::SeqCst).cast::<Work<'_>>().as_ref() };
    if let Some(work) = work {
        work.take_part(&mut Helper);
    }
}
