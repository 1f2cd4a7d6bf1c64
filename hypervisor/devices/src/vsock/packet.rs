//! The header of a packet (virtio 1.2, 5.10.6). The 44 bytes are copied from the guest once, then only the copy is used.

/// The size of a header in bytes.
pub(super) const HEADER_SIZE: usize = 44;
/// The host's context id.
pub(super) const HOST_CID: u64 = 2;
/// The only type that is served.
pub(super) const TYPE_STREAM: u16 = 1;
/// Flags of [`Operation::Shutdown`].
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
pub(super) const SHUTDOWN_SEND: u32 = 2;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Request,
    Response,
    Reset,
    Shutdown,
    Data,
    CreditUpdate,
    CreditRequest,
}

impl Operation {
    fn code(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Data => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
        }
    }

    fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }
}

/// A header in host memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub source_cid: u64,
    pub destination_cid: u64,
    pub source_port: u32,
    pub destination_port: u32,
    /// Bytes of payload.
    pub length: u32,
    pub kind: u16,
    /// None if it is no operation of virtio 1.2.
    pub operation: Option<Operation>,
    pub flags: u32,
    pub buffer: u32,
    pub forwarded: u32,
}

impl Header {
    pub fn parse(bytes: &[u8; HEADER_SIZE]) -> Self {
        let mut fields = Fields(bytes);
        Self {
            source_cid: u64::from_le_bytes(fields.take()),
            destination_cid: u64::from_le_bytes(fields.take()),
            source_port: u32::from_le_bytes(fields.take()),
            destination_port: u32::from_le_bytes(fields.take()),
            length: u32::from_le_bytes(fields.take()),
            kind: u16::from_le_bytes(fields.take()),
            operation: Operation::from_code(u16::from_le_bytes(fields.take())),
            flags: u32::from_le_bytes(fields.take()),
            buffer: u32::from_le_bytes(fields.take()),
            forwarded: u32::from_le_bytes(fields.take()),
        }
    }

    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_SIZE);
        bytes.extend(self.source_cid.to_le_bytes());
        bytes.extend(self.destination_cid.to_le_bytes());
        bytes.extend(self.source_port.to_le_bytes());
        bytes.extend(self.destination_port.to_le_bytes());
        bytes.extend(self.length.to_le_bytes());
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.operation.map_or(0, Operation::code).to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.buffer.to_le_bytes());
        bytes.extend(self.forwarded.to_le_bytes());
        bytes
    }

    /// A packet that says that there is no such connection, from where this one was sent to.
    pub fn refusal(&self) -> Self {
        Self {
            source_cid: self.destination_cid,
            destination_cid: self.source_cid,
            source_port: self.destination_port,
            destination_port: self.source_port,
            length: 0,
            kind: self.kind,
            operation: Some(Operation::Reset),
            flags: 0,
            buffer: 0,
            forwarded: 0,
        }
    }
}

/// Fields that follow one another.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// The caller takes no more than there is: the fields above are as long as [`HEADER_SIZE`], which a test holds.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.0.split_first_chunk() else { return [0; N] };
        self.0 = rest;
        *field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_laid_out_as_the_specification_says() {
        let bytes: Vec<u8> = (0..44).collect();
        let header = Header::parse(bytes.as_slice().try_into().unwrap());
        assert_eq!(header.source_cid, 0x0706_0504_0302_0100);
        assert_eq!(header.destination_port, u32::from_le_bytes([20, 21, 22, 23]));
        assert_eq!(header.kind, u16::from_le_bytes([28, 29]));
        assert_eq!(header.operation, None);
        assert_eq!(header.forwarded, u32::from_le_bytes([40, 41, 42, 43]));
        assert_eq!(header.to_bytes().len(), HEADER_SIZE);
    }

    #[test]
    fn every_operation_survives_the_wire() {
        for code in 1..=7 {
            let operation = Operation::from_code(code).unwrap();
            assert_eq!(operation.code(), code);
        }
        assert_eq!(Operation::from_code(0), None);
        assert_eq!(Operation::from_code(8), None);
    }
}
