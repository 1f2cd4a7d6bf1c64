//! Reading a network namespace, and saying it in the agent's messages.

use std::net::IpAddr;

use futures::TryStreamExt;
use nacre_protocol::types;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{Link, MAX_INTERFACES, Neighbour, NetworkError, Route, netlink};

/// `NUD_PERMANENT` of `linux/neighbour.h`.
const PERMANENT: i32 = 0x80;

/// The namespace's interfaces that are up, without loopback, by index, with their addresses.
pub(super) async fn links(handle: &Handle) -> Result<Vec<Link>, NetworkError> {
    let found: Vec<LinkMessage> =
        handle.link().get().execute().try_collect().await.map_err(netlink("listing interfaces"))?;
    let wanted = |link: &LinkMessage| {
        link.header.flags.contains(LinkFlags::Up) && !link.header.flags.contains(LinkFlags::Loopback)
    };
    let mut links = found.iter().filter(|link| wanted(link)).map(link).collect::<Result<Vec<_>, _>>()?;
    links.sort_by_key(|link| link.index);
    if links.len() > MAX_INTERFACES {
        return Err(NetworkError::TooMany(links.len()));
    }
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await.map_err(netlink("listing addresses"))? {
        let Some(link) = links.iter_mut().find(|link| link.index == message.header.index) else { continue };
        // On a point-to-point link `Address` is the peer's and `Local` ours; elsewhere IPv6 has only `Address`.
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        if let Some(address) = local.or(address).filter(|address| !link_local(address)) {
            link.addresses.push((address, message.header.prefix_len));
        }
    }
    Ok(links)
}

/// The guest makes its own link-local addresses, from the same MAC.
fn link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn link(message: &LinkMessage) -> Result<Link, NetworkError> {
    let mut link = Link {
        name: String::new(),
        index: message.header.index,
        mac: [0; 6],
        mtu: 1500,
        addresses: Vec::new(),
        no_arp: message.header.flags.contains(LinkFlags::Noarp),
    };
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(address) => mac = address.as_slice().try_into().ok(),
            _ => {}
        }
    }
    link.mac = mac.ok_or_else(|| NetworkError::NotEthernet(link.name.clone()))?;
    Ok(link)
}

/// The index of the interface `name`.
pub(super) async fn index_of(handle: &Handle, name: &str) -> Result<u32, NetworkError> {
    let mut found = handle.link().get().match_name(name.to_owned()).execute();
    let link = found.try_next().await.map_err(netlink(format!("looking for the interface {name}")))?;
    Ok(link.map(|link| link.header.index).unwrap_or_default())
}

/// The routes of the main table that the kernel does not make by itself.
pub(super) async fn routes(handle: &Handle, links: &[Link]) -> Result<Vec<Route>, NetworkError> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessageBuilder::<IpAddr>::new().build();
        request.header.address_family = family;
        let mut found = handle.route().get(request).execute();
        while let Some(message) = found.try_next().await.map_err(netlink("listing routes"))? {
            routes.extend(route(&message, links));
        }
    }
    Ok(routes)
}

fn route(message: &RouteMessage, links: &[Link]) -> Option<Route> {
    let header = &message.header;
    let ours = header.table == RouteHeader::RT_TABLE_MAIN
        && header.protocol != RouteProtocol::Kernel
        && header.kind == RouteType::Unicast;
    if !ours {
        return None;
    }
    let mut route = Route {
        device: String::new(),
        destination: None,
        gateway: None,
        source: None,
        scope: header.scope.into(),
        flags: header.flags.bits(),
        mtu: None,
        ipv6: header.address_family == AddressFamily::Inet6,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => {
                route.device.clone_from(&links.iter().find(|link| link.index == *index)?.name);
            }
            RouteAttribute::Destination(address) => {
                route.destination = Some((ip(address)?, header.destination_prefix_length));
            }
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (!route.device.is_empty()).then_some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// The permanent neighbours of these interfaces.
pub(super) async fn neighbours(handle: &Handle, links: &[Link]) -> Result<Vec<Neighbour>, NetworkError> {
    let mut neighbours = Vec::new();
    let mut found = handle.neighbours().get().execute();
    while let Some(message) = found.try_next().await.map_err(netlink("listing neighbours"))? {
        let link = links.iter().find(|link| link.index == message.header.ifindex);
        let (Some(link), NeighbourState::Permanent) = (link, message.header.state) else { continue };
        let mut address = None;
        let mut mac = None;
        for attribute in message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                    address = Some(found.into());
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                    address = Some(found.into());
                }
                NeighbourAttribute::LinkLayerAddress(found) => mac = Some(found),
                _ => {}
            }
        }
        if let (Some(address), Some(mac)) = (address, mac) {
            neighbours.push(Neighbour { device: link.name.clone(), address, mac });
        }
    }
    Ok(neighbours)
}

/// For the agent's UpdateInterface.
pub fn interface_message(link: &Link) -> types::Interface {
    types::Interface {
        device: link.name.clone(),
        name: link.name.clone(),
        IPAddresses: link
            .addresses
            .iter()
            .map(|(address, prefix)| address_message(*address, *prefix))
            .collect(),
        mtu: link.mtu.into(),
        hwAddr: mac_text(&link.mac),
        raw_flags: if link.no_arp { LinkFlags::Noarp.bits() } else { 0 },
        ..Default::default()
    }
}

/// For the agent's UpdateRoutes.
pub fn route_messages(routes: &[Route]) -> Vec<types::Route> {
    let text = |address: Option<IpAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    let message = |route: &Route| types::Route {
        dest: route.destination.map(|(address, prefix)| format!("{address}/{prefix}")).unwrap_or_default(),
        gateway: text(route.gateway),
        device: route.device.clone(),
        source: text(route.source),
        scope: route.scope.into(),
        family: if route.ipv6 { types::IPFamily::v6 } else { types::IPFamily::v4 }.into(),
        flags: route.flags,
        mtu: route.mtu.unwrap_or_default(),
        ..Default::default()
    };
    routes.iter().map(message).collect()
}

/// For the agent's AddARPNeighbors.
pub fn neighbour_messages(neighbours: &[Neighbour]) -> Vec<types::ARPNeighbor> {
    let message = |neighbour: &Neighbour| types::ARPNeighbor {
        toIPAddress: Some(address_message(neighbour.address, 0)).into(),
        device: neighbour.device.clone(),
        lladdr: mac_text(&neighbour.mac),
        state: PERMANENT,
        ..Default::default()
    };
    neighbours.iter().map(message).collect()
}

fn address_message(address: IpAddr, prefix: u8) -> types::IPAddress {
    let family = if address.is_ipv6() { types::IPFamily::v6 } else { types::IPFamily::v4 };
    // The mask is the prefix length as decimal text.
    types::IPAddress {
        family: family.into(),
        address: address.to_string(),
        mask: prefix.to_string(),
        ..Default::default()
    }
}

fn mac_text(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
