//! The guest's network: links, addresses, routes, neighbours.

use std::net::IpAddr;

use futures::TryStreamExt;
use nacre_protocol::agent::{ARPNeighbors, Interfaces, Routes};
use nacre_protocol::types::{IPFamily, Interface};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkUnspec};

mod address;
mod link;
mod neighbor;
mod route;

use crate::error::{Failure, Reply};

/// More than a pod has of anything.
const MAX_ENTRIES: usize = 4096;

/// A connection to the kernel; its task ends with the handle.
fn connect() -> Reply<Handle> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|error| Failure::internal("talk to the network", &error))?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Gives a link its name, addresses and settings, found by its hardware address, and returns it.
pub async fn update_interface(wanted: Interface) -> Reply<Interface> {
    link::update(&connect()?, &wanted).await?;
    Ok(wanted)
}

/// Adds routes and returns all there are then.
pub async fn update_routes(wanted: Routes) -> Reply<Routes> {
    if wanted.Routes.len() > MAX_ENTRIES {
        return Err(Failure::invalid("too many routes"));
    }
    let handle = connect()?;
    // Gateways must be reachable by routes that are there already.
    let (direct, by_gateway): (Vec<_>, Vec<_>) =
        wanted.Routes.iter().partition(|route| route.gateway.is_empty());
    for wanted in direct.into_iter().chain(by_gateway) {
        route::add(&handle, wanted).await?;
    }
    route::list(&handle).await
}

/// All links with their addresses.
pub async fn list_interfaces() -> Reply<Interfaces> {
    let handle = connect()?;
    let links: Vec<LinkMessage> =
        handle.link().get().execute().try_collect().await.map_err(refused("list the links"))?;
    let mut interfaces = Interfaces::default();
    for link in links {
        interfaces.Interfaces.push(link::describe(&handle, &link).await?);
    }
    Ok(interfaces)
}

/// All routes of the main table.
pub async fn list_routes() -> Reply<Routes> {
    route::list(&connect()?).await
}

/// Adds neighbours that never age.
pub async fn add_neighbors(wanted: ARPNeighbors) -> Reply<()> {
    if wanted.ARPNeighbors.len() > MAX_ENTRIES {
        return Err(Failure::invalid("too many neighbors"));
    }
    let handle = connect()?;
    for wanted in &wanted.ARPNeighbors {
        neighbor::add(&handle, wanted).await?;
    }
    Ok(())
}

/// Brings the loopback link up.
pub async fn loopback_up() -> Reply<()> {
    let handle = connect()?;
    let up = LinkUnspec::new_with_name("lo").up().build();
    handle.link().set(up).execute().await.map_err(refused("bring the loopback link up"))
}

/// The error of a refused request.
fn refused(what: &str) -> impl FnOnce(rtnetlink::Error) -> Failure {
    move |error| Failure::internal(what, &error)
}

/// The number of the link of this name.
async fn index(handle: &Handle, name: &str) -> Reply<u32> {
    let found = handle.link().get().match_name(name).execute().try_next().await;
    match found {
        Ok(Some(link)) => Ok(link.header.index),
        _ => Err(Failure::not_found(format!("no link is named {name:?}"))),
    }
}

/// The name of the link of this number.
async fn name(handle: &Handle, index: u32) -> Reply<String> {
    let found = handle.link().get().match_index(index).execute().try_next().await;
    let link = found.map_err(refused("find a link"))?;
    Ok(link.as_ref().map(name_of).unwrap_or_default())
}

fn name_of(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

fn family(address: &IpAddr) -> IPFamily {
    if address.is_ipv4() { IPFamily::v4 } else { IPFamily::v6 }
}

fn hardware_address(text: &str) -> Reply<Vec<u8>> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| {
            let two_digits = byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit());
            if two_digits { u8::from_str_radix(byte, 16).ok() } else { None }
        })
        .collect();
    bytes
        .filter(|bytes| bytes.len() == 6)
        .ok_or_else(|| Failure::invalid(format!("{text:?} is not a hardware address")))
}

fn hardware_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_six_bytes() {
        assert_eq!(hardware_address("02:00:ff:10:0a:01").unwrap(), [2, 0, 255, 16, 10, 1]);
        assert_eq!(hardware_text(&[2, 0, 255, 16, 10, 1]), "02:00:ff:10:0a:01");
        for bad in ["", "02", "02:00:ff:10:0a", "02:00:ff:10:0a:0g", "02:00:ff:10:0a:+1", "2:0:0:0:0:0"] {
            assert!(hardware_address(bad).is_err(), "{bad}");
        }
    }
}
