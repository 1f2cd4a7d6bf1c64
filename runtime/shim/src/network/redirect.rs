//! Traffic control between an interface and its tap: whatever arrives at one leaves through the other, before the
//! pod's own network stack sees it.

use std::os::fd::OwnedFd;

use rtnetlink::packet_route::tc::TcHandle;
use rtnetlink::{Handle, LinkUnspec};

use super::{Link, NetworkError, describe, netlink, tap};

/// `ETH_P_ALL` in network byte order, as the filter's header wants it.
const ALL_PROTOCOLS: u16 = 0x0003_u16.to_be();
/// The handle of an interface's ingress queue, `ffff:` to tc.
const INGRESS_QUEUE: TcHandle = TcHandle { major: 0xffff, minor: 0 };

/// Makes a tap for an interface and joins the two.
pub(super) async fn join(handle: &Handle, link: &Link) -> Result<OwnedFd, NetworkError> {
    let name = &link.name;
    let (file, tap) = tap::open().map_err(|source| NetworkError::Tap { interface: name.clone(), source })?;
    let tap = describe::index_of(handle, &tap).await?;
    let up = LinkUnspec::new_with_index(tap).mtu(link.mtu).up().build();
    handle.link().set(up).execute().await.map_err(netlink(format!("starting the tap of {name}")))?;
    for (from, to) in [(link.index, tap), (tap, link.index)] {
        let from = from.cast_signed();
        let queue = handle.qdisc().replace(from).ingress().execute().await;
        queue.map_err(netlink(format!("an ingress queue for {name} (is the module sch_ingress there?)")))?;
        // The priority first: setting it overwrites the protocol.
        let filters = &mut handle.traffic_filter(from);
        let filter = filters.replace().parent(INGRESS_QUEUE.into()).priority(1).protocol(ALL_PROTOCOLS);
        let filter = filter.redirect(to).map_err(netlink(format!("a redirection for {name}")))?;
        let set = filter.execute().await;
        set.map_err(netlink(format!("the redirection of {name} (are cls_u32 and act_mirred there?)")))?;
    }
    Ok(file)
}

/// Takes the redirection off an interface. It may be gone, or have none.
pub(super) async fn part(handle: &Handle, index: u32) {
    let mut request = handle.qdisc().del(index.cast_signed());
    let header = &mut request.message_mut().header;
    (header.parent, header.handle) = (TcHandle::INGRESS, INGRESS_QUEUE);
    let _ = request.execute().await;
}
