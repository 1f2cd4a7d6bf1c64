//! IP addresses as the protocol writes them.

use std::net::IpAddr;

use nacre_protocol::types::IPAddress;

use crate::error::{Failure, Reply};

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    pub address: IpAddr,
    pub prefix: u8,
}

/// An address with its mask, which is a prefix length as decimal text.
pub fn from_message(message: &IPAddress) -> Reply<Network> {
    network(&message.address, &message.mask)
}

/// An address like `10.0.0.0/8`; without a length it is the whole address.
pub fn from_text(text: &str) -> Reply<Network> {
    match text.split_once('/') {
        Some((address, prefix)) => network(address, prefix),
        None => {
            let address = ip(text)?;
            Ok(Network { address, prefix: longest(&address) })
        }
    }
}

/// An address alone.
pub fn ip(text: &str) -> Reply<IpAddr> {
    text.parse().map_err(|_| Failure::invalid(format!("{text:?} is not an IP address")))
}

fn network(address: &str, prefix: &str) -> Reply<Network> {
    let address = ip(address)?;
    let prefix =
        prefix.parse().ok().filter(|prefix| *prefix <= longest(&address)).ok_or_else(|| {
            Failure::invalid(format!("{prefix:?} is not the length of a prefix of {address}"))
        })?;
    Ok(Network { address, prefix })
}

fn longest(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("10.0.0.0/8", Some(8))]
    #[case("10.0.0.1", Some(32))]
    #[case("fd00::1/64", Some(64))]
    #[case("fd00::1", Some(128))]
    #[case("10.0.0.0/33", None)]
    #[case("10.0.0.0/x", None)]
    #[case("10.0.0", None)]
    #[case("", None)]
    fn networks_have_a_prefix_that_fits(#[case] text: &str, #[case] prefix: Option<u8>) {
        assert_eq!(from_text(text).ok().map(|network| network.prefix), prefix);
    }
}
