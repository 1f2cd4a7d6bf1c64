//! The codes with which stage0 says why it stopped: a stage and a number within it.
//!
//! On SEV-SNP they travel as reason set and reason code of the GHCB's termination request, which has four and
//! eight bits for them (GHCB specification 56421, section 2.3.1); sets 0 and 1 are the specification's and Linux's.
//! On TDX they are the code of ReportFatalError, with [`Stop::text`] as its message (GHCI 1.5, section 3.4).

use core::fmt;

macro_rules! stops {
    ($($(#[$doc:meta])* $name:ident = $stage:literal, $code:literal, $text:literal;)*) => {
        /// Why stage0 stopped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Stop {
            $($(#[$doc])* $name,)*
        }

        impl Stop {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The stage: 2 entry, 3 parameters, 4 memory, 5 images, 6 handing over.
            #[must_use]
            pub const fn stage(self) -> u8 {
                match self { $(Self::$name => $stage,)* }
            }

            /// The reason in words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The number within the stage.
            #[must_use]
            pub const fn code(self) -> u8 {
                match self { $(Self::$name => $code,)* }
            }
        }

        impl fmt::Display for Stop {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.text())
            }
        }
    };
}

stops! {
    /// A CPU other than the first came to the entry, or the first came twice.
    SecondEntry = 2, 1, "stage0 was entered a second time";
    /// A page of stage0's own memory could not be validated.
    ScratchNotValidated = 2, 2, "stage0's own memory could not be validated";
    /// The measured encryption bit is none.
    NoEncryptionBit = 2, 3, "the encryption bit that was measured is none";
    /// A check of the program itself failed.
    Panic = 2, 4, "stage0 found a mistake of its own";
    /// The processor does not say that this is the machine that the entry's tag says.
    OtherPlatform = 2, 5, "the machine is not of the kind that the entry was told";

    /// The parameters page breaks a rule.
    Parameters = 3, 1, "the parameters page breaks a rule";
    /// The memory map breaks a rule.
    MemoryMap = 3, 2, "the memory map breaks a rule";
    /// The hashes page breaks a rule.
    Hashes = 3, 3, "the hashes page breaks a rule";
    /// The processor's encryption bit is not the one that was measured.
    EncryptionBit = 3, 4, "the encryption or shared bit is not the one that was measured";

    /// PVALIDATE or TDG.MEM.PAGE.ACCEPT failed.
    NotValidated = 4, 1, "a page of memory could not be validated";
    /// A page that nobody took into use was valid before.
    ValidatedBefore = 4, 2, "a page of memory was in use before stage0 took it";

    /// A kernel segment's copy has another hash than was measured.
    KernelHash = 5, 1, "the kernel is not the one that was measured";
    /// The initrd's copy has another hash than was measured.
    InitrdHash = 5, 2, "the initrd is not the one that was measured";
    /// The command line's copy has another hash than was measured.
    CommandLineHash = 5, 3, "the command line is not the one that was measured";
    /// The command line does not end with its only zero.
    CommandLine = 5, 4, "the command line is not one string";

    /// A TDX module did not extend a runtime measurement register.
    RuntimeMeasurement = 5, 5, "a runtime measurement register could not be extended";

    /// What is to be said to the kernel has no room.
    Tables = 6, 1, "the tables for the kernel have no room";
}

impl Stop {
    /// The reason that a stage and a number stand for.
    #[must_use]
    pub fn from_codes(stage: u8, code: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|stop| (stop.stage(), stop.code()) == (stage, code))
    }

    /// The stage in a word or two.
    #[must_use]
    pub const fn stage_name(self) -> &'static str {
        match self.stage() {
            2 => "entry",
            3 => "parameters",
            4 => "memory",
            5 => "images",
            _ => "handing over",
        }
    }

    /// The reason that was written to [`STOP_PORT`].
    #[must_use]
    pub fn from_port(value: u32) -> Option<Self> {
        let [code, stage, 0, 0] = value.to_le_bytes() else { return None };
        Self::from_codes(stage, code)
    }

    /// What is written to the GHCB's MSR to end the guest (GHCB specification 56421, section 2.3.1).
    #[must_use]
    pub const fn ghcb_request(self) -> u32 {
        const TERMINATION: u32 = 0x100;
        TERMINATION | (self.stage() as u32) << 12 | (self.code() as u32) << 16
    }

    /// The first 64 bytes of [`Stop::text`], zeros behind it: what ReportFatalError has room for.
    #[must_use]
    pub fn message(self) -> [u8; 64] {
        let mut message = [0; 64];
        message.iter_mut().zip(self.text().bytes()).for_each(|(place, byte)| *place = byte);
        message
    }

    /// What is written to [`STOP_PORT`] on a machine without confidential memory, and the code of a TDX guest's
    /// ReportFatalError.
    #[must_use]
    pub const fn port_value(self) -> u32 {
        (self.stage() as u32) << 8 | self.code() as u32
    }
}

/// The I/O port for [`Stop::port_value`] on a machine without confidential memory.
pub const STOP_PORT: u16 = 0xf4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_codes_in_the_guests_own_sets() {
        for stop in Stop::ALL {
            assert_eq!(Stop::from_codes(stop.stage(), stop.code()), Some(*stop));
            assert_eq!(Stop::from_port(stop.port_value()), Some(*stop));
            assert!((2..16).contains(&stop.stage()));
        }
        assert_eq!(Stop::from_codes(0, 0), None);
        assert_eq!(Stop::from_port(0x1_0501), None);
    }

    #[test]
    fn a_request_to_terminate_has_set_and_code_where_the_specification_has_them() {
        assert_eq!(Stop::InitrdHash.ghcb_request(), 0x2_5100);
    }
}
