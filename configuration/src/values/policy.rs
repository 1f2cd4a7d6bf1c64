//! The policy of an SEV-SNP guest.

use crate::schema::Allowed;

/// What the firmware may do with a guest (SEV-SNP firmware ABI 56860, section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnpPolicy(u64);

/// A policy that no guest can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnpPolicyError {
    /// No number.
    #[error("must be a hexadecimal number that starts with 0x, not {0:?}")]
    NotHexadecimal(String),
    /// Bit 17, which is always one, or a bit that KVM or the firmware refuses.
    #[error("must have bit 17 set and neither bit 18 nor a bit above 25, not {0:#x}")]
    Refused(u64),
}

impl SnpPolicy {
    const ALWAYS: u64 = 1 << 17;
    const REFUSED: u64 = 1 << 18 | !((1 << 26) - 1);

    /// The number.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// What every kernel with SEV-SNP takes: multithreading allowed, nothing else.
    pub(crate) const fn portable() -> Self {
        Self(Self::ALWAYS | 1 << 16)
    }
}

impl TryFrom<String> for SnpPolicy {
    type Error = SnpPolicyError;

    fn try_from(text: String) -> Result<Self, SnpPolicyError> {
        let digits = text.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16));
        let Some(Ok(bits)) = digits else { return Err(SnpPolicyError::NotHexadecimal(text)) };
        if bits & Self::ALWAYS == 0 || bits & Self::REFUSED != 0 {
            return Err(SnpPolicyError::Refused(bits));
        }
        Ok(Self(bits))
    }
}

impl From<SnpPolicy> for String {
    fn from(policy: SnpPolicy) -> Self {
        format!("{:#x}", policy.0)
    }
}

impl Allowed for SnpPolicy {
    fn allowed() -> String {
        "a hexadecimal number with bit 17 set".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_kvm_and_the_firmware_take() {
        let policy = |text: &str| SnpPolicy::try_from(text.to_owned()).map(SnpPolicy::bits);
        assert_eq!(policy("0x30000"), Ok(0x3_0000));
        assert_eq!(policy("0xb0000"), Ok(0xb_0000));
        for refused in [0x1_0000, 0x7_0000, 0x403_0000] {
            assert_eq!(policy(&format!("{refused:#x}")), Err(SnpPolicyError::Refused(refused)));
        }
        assert_eq!(policy("30000"), Err(SnpPolicyError::NotHexadecimal("30000".into())));
    }
}
