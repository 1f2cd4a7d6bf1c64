//! The header in front of each frame (virtio 1.2, 5.1.6).

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6,
};

/// The size of `virtio_net_hdr_v1` in bytes.
pub(super) const SIZE: usize = 12;
/// Where `num_buffers` is in it.
pub(super) const BUFFERS_OFFSET: usize = 10;

/// Whether a frame from the guest asks for nothing but what was agreed on.
///
/// SECURITY: the host's kernel acts on this header; what the guest has no business with never gets there.
pub(super) fn is_acceptable(header: &[u8; SIZE], features: u64) -> bool {
    let [flags, segmentation, ..] = header.map(u32::from);
    let agreed = |feature: u32| features & (1 << feature) != 0;
    let checksum = flags == VIRTIO_NET_HDR_F_NEEDS_CSUM && agreed(VIRTIO_NET_F_CSUM);
    match segmentation {
        VIRTIO_NET_HDR_GSO_NONE => flags == 0 || checksum,
        VIRTIO_NET_HDR_GSO_TCPV4 => checksum && agreed(VIRTIO_NET_F_HOST_TSO4),
        VIRTIO_NET_HDR_GSO_TCPV6 => checksum && agreed(VIRTIO_NET_F_HOST_TSO6),
        _ => false,
    }
}
