//! Neighbours.

use nacre_protocol::types::ARPNeighbor;
use rtnetlink::Handle;
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};

use super::{address, hardware_address, index, refused};
use crate::error::{Failure, Reply};

/// Adds a neighbour, or replaces the one of the same address.
pub async fn add(handle: &Handle, wanted: &ARPNeighbor) -> Reply<()> {
    let message =
        wanted.toIPAddress.as_ref().ok_or_else(|| Failure::invalid("a neighbor without an address"))?;
    let destination = address::ip(&message.address)?;
    let link = index(handle, &wanted.device).await?;
    let state = u16::try_from(wanted.state).ok().filter(|state| *state != 0).map(NeighbourState::from);
    let flags = u8::try_from(wanted.flags).map_err(|_| Failure::invalid("the neighbor's flags"))?;
    let mut request = handle
        .neighbours()
        .add(link, destination)
        .state(state.unwrap_or(NeighbourState::Permanent))
        .flags(NeighbourFlags::from_bits_truncate(flags))
        .replace();
    if !wanted.lladdr.is_empty() {
        request = request.link_layer_address(&hardware_address(&wanted.lladdr)?);
    }
    request.execute().await.map_err(refused("add a neighbor"))
}
