//! virtio-mmio transport and devices, testable without KVM.
