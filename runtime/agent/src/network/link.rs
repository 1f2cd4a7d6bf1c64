//! Links and their addresses.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use nacre_protocol::types::{IPAddress, Interface};
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec};

use super::{address, family, hardware_address, hardware_text, name_of, refused};
use crate::error::{Failure, Reply};

/// The kernel's bound on a name, without its end.
const MAX_NAME: usize = 15;

/// Makes a link as wanted. Nothing is removed from it.
pub async fn update(handle: &Handle, wanted: &Interface) -> Reply<()> {
    let hardware = hardware_address(&wanted.hwAddr)?;
    let addresses: Vec<_> = wanted.IPAddresses.iter().map(address::from_message).collect::<Reply<_>>()?;
    let mtu = u32::try_from(wanted.mtu).map_err(|_| Failure::invalid("the link's MTU"))?;
    if wanted.name.len() > MAX_NAME || wanted.name.contains(['/', '\0', ' ']) {
        return Err(Failure::invalid(format!("the link's name {:?}", wanted.name)));
    }
    let links: Vec<LinkMessage> =
        handle.link().get().execute().try_collect().await.map_err(refused("list the links"))?;
    let link = find(&links, &hardware, &wanted.name)
        .ok_or_else(|| Failure::not_found(format!("no link has the hardware address {}", wanted.hwAddr)))?;
    let index = link.header.index;

    let rename = !wanted.name.is_empty() && name_of(link) != wanted.name;
    let remac = hardware_of(link) != Some(&hardware);
    let change = || LinkUnspec::new_with_index(index);
    if rename || remac {
        set(handle, change().down(), "bring the link down").await?;
    }
    if remac {
        set(handle, change().address(hardware), "set the hardware address").await?;
    }
    if rename {
        make_way(handle, &links, &wanted.name).await?;
        set(handle, change().name(wanted.name.clone()), "name the link").await?;
    }
    for network in addresses {
        let mut add = handle.address().add(index, network.address, network.prefix).replace();
        // Whoever gave the pod its address has made sure that it is the only one. Looking again would keep it from being
        // used for a second or two.
        if network.address.is_ipv6() {
            add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        add.execute().await.map_err(refused("add an address"))?;
    }
    let mut last = change().up();
    if mtu > 0 {
        last = last.mtu(mtu);
    }
    if LinkFlags::from_bits_truncate(wanted.raw_flags).contains(LinkFlags::Noarp) {
        last = last.arp(false);
    }
    set(handle, last, "bring the link up").await
}

/// The link of this hardware address, or else of this name.
fn find<'a>(links: &'a [LinkMessage], hardware: &[u8], name: &str) -> Option<&'a LinkMessage> {
    let by_hardware = links.iter().find(|link| hardware_of(link).is_some_and(|own| own == hardware));
    by_hardware.or_else(|| links.iter().find(|link| !name.is_empty() && name_of(link) == name))
}

fn hardware_of(link: &LinkMessage) -> Option<&Vec<u8>> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => Some(bytes),
        _ => None,
    })
}

/// Gives a link that has this name another one.
async fn make_way(handle: &Handle, links: &[LinkMessage], name: &str) -> Reply<()> {
    let Some(other) = links.iter().find(|link| name_of(link) == name) else { return Ok(()) };
    let names: BTreeSet<String> = links.iter().map(name_of).collect();
    let free = (0..links.len()).map(|number| format!("moved{number}")).find(|name| !names.contains(name));
    let change = || LinkUnspec::new_with_index(other.header.index);
    set(handle, change().down(), "bring the link down").await?;
    set(handle, change().name(free.unwrap_or_else(|| "moved".into())), "rename the link").await
}

async fn set(handle: &Handle, change: LinkMessageBuilder<LinkUnspec>, what: &str) -> Reply<()> {
    handle.link().set(change.build()).execute().await.map_err(refused(what))
}

/// A link as the protocol describes it.
pub async fn describe(handle: &Handle, link: &LinkMessage) -> Reply<Interface> {
    let index = link.header.index;
    let addresses: Vec<AddressMessage> = handle
        .address()
        .get()
        .set_link_index_filter(index)
        .execute()
        .try_collect()
        .await
        .map_err(refused("list the addresses"))?;
    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    let name = name_of(link);
    Ok(Interface {
        device: name.clone(),
        name,
        IPAddresses: addresses.iter().filter_map(describe_address).collect(),
        mtu: mtu.unwrap_or_default().into(),
        hwAddr: hardware_of(link).map(|bytes| hardware_text(bytes)).unwrap_or_default(),
        raw_flags: link.header.flags.bits() & LinkFlags::Noarp.bits(),
        ..Default::default()
    })
}

fn describe_address(message: &AddressMessage) -> Option<IPAddress> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    })?;
    Some(IPAddress {
        family: family(&address).into(),
        address: address.to_string(),
        mask: message.header.prefix_len.to_string(),
        ..Default::default()
    })
}
