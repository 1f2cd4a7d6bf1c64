//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use nacre_protocol::agent::Routes;
use nacre_protocol::types::{IPFamily, Route};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteScope,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::address::{self, Network};
use super::{index, name, refused};
use crate::error::{Failure, Reply};

/// Adds a route, or replaces the one to the same place.
pub async fn add(handle: &Handle, wanted: &Route) -> Reply<()> {
    let message = message(handle, wanted).await?;
    let what = format!("add the route to {:?} by {:?}", wanted.dest, wanted.device);
    handle.route().add(message).replace().execute().await.map_err(refused(&what))
}

async fn message(handle: &Handle, wanted: &Route) -> Reply<RouteMessage> {
    let six = wanted.family.enum_value() == Ok(IPFamily::v6);
    let unspecified: IpAddr = if six { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let destination = match wanted.dest.as_str() {
        "" | "default" => Network { address: unspecified, prefix: 0 },
        text => address::from_text(text)?,
    };
    let bad = |what: &str, text: &str| Failure::invalid(format!("the route's {what} {text:?}"));
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .output_interface(index(handle, &wanted.device).await?)
        .destination_prefix(destination.address, destination.prefix)
        .map_err(|_| bad("destination", &wanted.dest))?;
    if !wanted.gateway.is_empty() {
        let gateway = address::ip(&wanted.gateway)?;
        builder = builder.gateway(gateway).map_err(|_| bad("gateway", &wanted.gateway))?;
    } else {
        let scope = u8::try_from(wanted.scope).map_err(|_| bad("scope", &wanted.scope.to_string()))?;
        builder = builder.scope(RouteScope::from(scope));
    }
    if !wanted.source.is_empty() {
        let source = address::from_text(&wanted.source)?.address;
        builder = builder.pref_source(source).map_err(|_| bad("source", &wanted.source))?;
    }
    let mut message = builder.build();
    message.header.flags |= RouteFlags::from_bits_truncate(wanted.flags) & RouteFlags::Onlink;
    if wanted.mtu > 0 {
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(wanted.mtu)]));
    }
    Ok(message)
}

/// All routes of the main table.
pub async fn list(handle: &Handle) -> Reply<Routes> {
    let mut routes = Routes::default();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let mut found = std::pin::pin!(handle.route().get(request).execute());
        while let Some(message) = found.try_next().await.map_err(refused("list the routes"))? {
            if message.header.table == RouteHeader::RT_TABLE_MAIN {
                routes.Routes.push(describe(handle, &message).await?);
            }
        }
    }
    Ok(routes)
}

async fn describe(handle: &Handle, message: &RouteMessage) -> Reply<Route> {
    let six = message.header.address_family == AddressFamily::Inet6;
    let mut route = Route {
        scope: u8::from(message.header.scope).into(),
        family: if six { IPFamily::v6 } else { IPFamily::v4 }.into(),
        flags: message.header.flags.bits(),
        ..Default::default()
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                route.dest = format!("{}/{}", text(address), message.header.destination_prefix_length);
            }
            RouteAttribute::Gateway(address) => route.gateway = text(address),
            RouteAttribute::PrefSource(address) => route.source = text(address),
            RouteAttribute::Oif(index) => route.device = name(handle, *index).await?,
            RouteAttribute::Metrics(metrics) => {
                let mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
                route.mtu = mtu.unwrap_or_default();
            }
            _ => {}
        }
    }
    Ok(route)
}

fn text(address: &RouteAddress) -> String {
    match address {
        RouteAddress::Inet(address) => address.to_string(),
        RouteAddress::Inet6(address) => address.to_string(),
        _ => String::new(),
    }
}
