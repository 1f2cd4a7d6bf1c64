//! Small guest programs, in 32-bit code with flat segments.

/// The port with which a program ends, and the upper half of the number that it writes there: a stage that stage0 has not.
const END_PORT: u8 = 0xf4;
pub const END_STAGE: u8 = 9;

/// `KVM_HC_MAP_GPA_RANGE` and its attribute for private memory.
const MAP_GPA_RANGE: u32 = 12;
const PRIVATE: u32 = 0x10;

/// Code that grows.
#[derive(Debug, Clone, Default)]
pub struct Program {
    code: Vec<u8>,
    intel: bool,
}

impl Program {
    /// An empty program for the host's processor: hypercalls differ.
    pub fn new() -> Self {
        let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self { code: Vec::new(), intel: information.contains("GenuineIntel") }
    }

    /// Stores `value` at `address`.
    #[must_use]
    pub fn store(self, address: u32, value: u32) -> Self {
        // mov dword [address], value
        self.emit(&[0xc7, 0x05]).number(address).number(value)
    }

    /// Ends with `code` unless `value` is at `address`.
    #[must_use]
    pub fn expect(self, address: u32, value: u32, code: u8) -> Self {
        // cmp dword [address], value
        self.emit(&[0x81, 0x3d]).number(address).number(value).end_unless_equal(code)
    }

    /// Asks for `count` pages from `gpa` on to be converted, and ends with `code` unless the answer is `answer`.
    #[must_use]
    pub fn convert(self, gpa: u32, count: u32, private: bool, answer: i32, code: u8) -> Self {
        self.hypercall(MAP_GPA_RANGE, gpa, count, if private { PRIVATE } else { 0 }, answer, code)
    }

    /// A hypercall with three arguments.
    #[must_use]
    pub fn hypercall(self, number: u32, first: u32, second: u32, third: u32, answer: i32, code: u8) -> Self {
        let call: [u8; 3] = if self.intel { [0x0f, 0x01, 0xc1] } else { [0x0f, 0x01, 0xd9] };
        // mov eax, number; mov ebx, first; mov ecx, second; mov edx, third; vmmcall; cmp eax, answer
        let this = self.emit(&[0xb8]).number(number).emit(&[0xbb]).number(first).emit(&[0xb9]).number(second);
        let this = this.emit(&[0xba]).number(third).emit(&call).emit(&[0x3d]).number(answer.cast_unsigned());
        this.end_unless_equal(code)
    }

    /// Writes to each of `count` pages from `address` on.
    #[must_use]
    pub fn touch(self, address: u32, count: u32) -> Self {
        // mov edi, address; then for each page: mov [edi], esi; add edi, 0x1000
        let this = self.emit(&[0xbf]).number(address);
        this.repeat(count, |body| body.emit(&[0x89, 0x37, 0x81, 0xc7]).number(0x1000))
    }

    /// Does `body` this often.
    #[must_use]
    pub fn repeat(self, count: u32, body: impl FnOnce(Self) -> Self) -> Self {
        // mov esi, count; again: …; dec esi; jnz again
        let this = self.emit(&[0xbe]).number(count);
        let again = this.code.len();
        let this = body(this).emit(&[0x4e, 0x0f, 0x85]);
        let distance = i32::try_from(again).unwrap_or(0) - i32::try_from(this.code.len() + 4).unwrap_or(0);
        this.number(distance.cast_unsigned())
    }

    /// Ends with `code`.
    #[must_use]
    pub fn end(self, code: u8) -> Self {
        // mov eax, stage << 8 | code; out port, eax; hlt
        self.emit(&[0xb8]).number(u32::from(END_STAGE) << 8 | u32::from(code)).emit(&[0xe7, END_PORT, 0xf4])
    }

    /// The bytes.
    pub fn code(&self) -> &[u8] {
        &self.code
    }

    fn end_unless_equal(self, code: u8) -> Self {
        let end = Self { code: Vec::new(), intel: self.intel }.end(code).code;
        // je behind
        let len = u8::try_from(end.len()).unwrap_or(0);
        self.emit(&[0x74, len]).emit(&end)
    }

    fn emit(mut self, bytes: &[u8]) -> Self {
        self.code.extend(bytes);
        self
    }

    fn number(self, number: u32) -> Self {
        self.emit(&number.to_le_bytes())
    }
}
